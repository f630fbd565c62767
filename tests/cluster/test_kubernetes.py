"""The RayService manifest: KubeRay's fields, Ray's reading of it, and the config that it serves."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from importlib.metadata import version
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.serve.schema import ServeDeploySchema

from cluster.config import ROOT
from cluster.config_file import load
from cluster.config_pools import ACCELERATOR_LABEL
from policies.placing import Node, Room, count, judge

FOLDER = ROOT / "infra" / "kubernetes"
FLEET = ROOT / "config" / "fleet.yaml"


def closed(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }


NUMBER = {"type": "integer", "minimum": 0}
STRING = {"type": "string"}
STRINGS = {"type": "object", "additionalProperties": STRING}
PROBE = closed(
    ("httpGet",),
    httpGet=closed(("path", "port"), path={"pattern": "^/"}, port=NUMBER),
    initialDelaySeconds=NUMBER,
    periodSeconds=NUMBER,
    timeoutSeconds=NUMBER,
    failureThreshold=NUMBER,
)
PORTS = {"items": closed(("containerPort", "name"), containerPort=NUMBER, name=STRING)}
CONTAINER = closed(
    ("name", "image", "ports", "resources", "livenessProbe", "readinessProbe"),
    name=STRING,
    image={"pattern": "^[^:]+:[^:]+$"},
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    env={"items": closed(("name", "value"), name=STRING, value=STRING)},
    ports=PORTS,
    resources=closed(("requests", "limits"), requests=STRINGS, limits=STRINGS),
    volumeMounts={"items": closed(name=STRING, mountPath=STRING, readOnly={"type": "boolean"})},
    securityContext={"type": "object"},
    livenessProbe=PROBE,
    readinessProbe=PROBE,
)
POD = closed(
    ("containers", "securityContext"),
    securityContext={"type": "object"},
    terminationGracePeriodSeconds=NUMBER,
    volumes={"type": "array"},
    nodeSelector=STRINGS,
    tolerations={"type": "array"},
    containers={"type": "array", "items": CONTAINER, "minItems": 1, "maxItems": 1},
)
GROUP = {
    "labels": STRINGS,
    "rayStartParams": STRINGS,
    "template": closed(("spec",), metadata={"type": "object"}, spec=POD),
}
# The fields that we use, as in KubeRay 1.6's reference of ray.io/v1.
SERVICE = closed(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata=closed(("name",), name=STRING),
    spec=closed(
        ("serveConfigV2", "rayClusterConfig"),
        serveConfigV2=STRING,
        upgradeStrategy=closed(type={"enum": ["NewCluster", "None"]}),
        rayClusterConfig=closed(
            ("headGroupSpec", "workerGroupSpecs", "rayVersion"),
            rayVersion=STRING,
            authOptions=closed(mode={"enum": ["token", "disabled"]}),
            enableInTreeAutoscaling={"const": True},
            autoscalerOptions=closed(
                version={"const": "v2"},
                upscalingMode={"enum": ["Default", "Conservative", "Aggressive"]},
                idleTimeoutSeconds=NUMBER,
            ),
            headGroupSpec=closed(("template", "rayStartParams"), **GROUP),
            workerGroupSpecs={
                "type": "array",
                "minItems": 1,
                "items": closed(
                    ("groupName", "minReplicas", "maxReplicas", "template"),
                    groupName=STRING,
                    replicas=NUMBER,
                    minReplicas=NUMBER,
                    maxReplicas=NUMBER,
                    **GROUP,
                ),
            },
        ),
    ),
)


@pytest.fixture
def service() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "rayservice.yaml").read_text())


@pytest.fixture
def cluster(service: dict[str, Any]) -> dict[str, Any]:
    return service["spec"]["rayClusterConfig"]


@pytest.fixture
def kinds(cluster: dict[str, Any]) -> dict[str, Any]:
    """The machines as Ray's autoscaler reads them: Ray's own code, and its own schema."""
    custom_resource = {"metadata": {"name": "viaserve", "namespace": "default"}, "spec": cluster}
    return _derive_autoscaling_config_from_ray_cr(deepcopy(custom_resource))["available_node_types"]


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def container(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]["containers"][0]


def machines(kinds: dict[str, Any], bound: str) -> list[Node]:
    return [
        Node(kind["labels"], kind["resources"], kind["resources"])
        for kind in kinds.values()
        for _ in range(kind[bound])
    ]


def test_fields_are_those_of_a_ray_service(service: dict[str, Any]) -> None:
    jsonschema.validate(service, SERVICE)


def test_it_serves_the_fleets_config_word_for_word(service: dict[str, Any]) -> None:
    served = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert served == yaml.safe_load(FLEET.read_text())
    ServeDeploySchema.model_validate(served)


def test_it_runs_the_ray_that_the_image_has(cluster: dict[str, Any]) -> None:
    assert cluster["rayVersion"] == version("ray")
    assert len({container(group)["image"] for group in groups(cluster)}) == 1


def test_ray_reads_a_group_of_each_gpu_with_its_label_and_a_head_without(
    kinds: dict[str, Any],
) -> None:
    head, *workers = kinds.values()
    assert head["resources"]["CPU"] == 0
    assert "GPU" not in head["resources"]
    assert [kind["resources"]["GPU"] > 0 for kind in workers] == [True] * len(workers)
    assert max(Counter(kind["labels"][ACCELERATOR_LABEL] for kind in workers).values()) == 1
    assert all(kind["min_workers"] <= kind["max_workers"] for kind in workers)


def test_every_pool_has_room_on_each_of_its_hardware(kinds: dict[str, Any]) -> None:
    for name, pool in load(FLEET)[0].pools.items():
        assert judge(pool.demand, machines(kinds, "min_workers")).room is Room.FREE, name
        for way in pool.ways:
            verdict = judge(way.demand, machines(kinds, "max_workers"))
            assert verdict.room is Room.FREE, f"{name}: {verdict.why}"
        mine = [
            node
            for node in machines(kinds, "max_workers")
            if node.labels[ACCELERATOR_LABEL] == pool.accelerator
        ]
        assert sum(count(pool.demand.resources, n.total) for n in mine) >= pool.processes, name


def test_machines_are_those_of_the_cluster_launcher(kinds: dict[str, Any]) -> None:
    launched = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())["available_node_types"]
    for name, kind in list(kinds.items())[1:]:
        assert kind["labels"] == launched[name]["labels"]
        assert kind["resources"]["GPU"] == launched[name]["resources"]["GPU"]
        for bound in ("min_workers", "max_workers"):
            assert kind[bound] == launched[name][bound]


def test_pods_of_gpus_ask_for_them_and_may_land_where_they_are(cluster: dict[str, Any]) -> None:
    for group in cluster["workerGroupSpecs"]:
        resources = container(group)["resources"]
        assert resources["requests"] == resources["limits"]
        assert int(resources["limits"]["nvidia.com/gpu"]) > 0
        accelerator = group["labels"][ACCELERATOR_LABEL]
        [product] = group["template"]["spec"]["nodeSelector"].values()
        assert accelerator in product.split("-")
        [toleration] = group["template"]["spec"]["tolerations"]
        assert (toleration["key"], toleration["operator"]) == ("nvidia.com/gpu", "Exists")


def test_probes_ask_what_listens(cluster: dict[str, Any]) -> None:
    agent = 52365  # of Ray's dashboard agent, which each node has
    port = load(FLEET)[1]["port"]
    for group in groups(cluster):
        named = {p["name"]: p["containerPort"] for p in container(group)["ports"]}
        assert named["serve"] == port
        assert container(group)["livenessProbe"]["httpGet"]["port"] == agent
    head, *workers = groups(cluster)
    # KubeRay deploys the application once the head is ready, so that cannot be asked for there.
    assert container(head)["readinessProbe"]["httpGet"]["port"] == agent
    for group in workers:
        asked = container(group)["readinessProbe"]["httpGet"]
        assert asked == {"path": "/-/healthz", "port": port}


def test_every_file_that_the_config_names_is_mounted(cluster: dict[str, Any]) -> None:
    config, _ = load(FLEET)
    assert config.draft is not None
    named = [config.model.path, config.draft.path, config.ingress.api_keys_file]
    for group in groups(cluster):
        spec = group["template"]["spec"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        mounts = container(group)["volumeMounts"]
        assert {mount["name"] for mount in mounts} == volumes
        for path in named:
            assert any(str(path).startswith(f"{mount['mountPath']}/") for mount in mounts), path


def test_labels_of_kuberays_own_services_are_left_to_it(cluster: dict[str, Any]) -> None:
    # The head service of a RayService selects by KubeRay's values, whatever the pods' labels say.
    kuberays = {"app.kubernetes.io/name", "app.kubernetes.io/created-by"}
    for group in groups(cluster):
        named = group["template"]["metadata"]["labels"].keys()
        assert not named & kuberays
        assert not [label for label in named if label.startswith("ray.io/")]


def test_a_pod_drains_before_it_is_killed_and_is_nobodys_root(cluster: dict[str, Any]) -> None:
    for group in groups(cluster):
        spec = group["template"]["spec"]
        env = {item["name"]: item["value"] for item in container(group)["env"]}
        drain_s = float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert 0 < drain_s < spec["terminationGracePeriodSeconds"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert not container(group)["securityContext"]["allowPrivilegeEscalation"]
