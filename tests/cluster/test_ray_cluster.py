"""The cluster-launcher file against Ray's own schema, and against the configs that it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray._private.label_utils import validate_node_label_syntax
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.config_file import load
from cluster.config_pools import ACCELERATOR_LABEL, PoolConfig
from policies.placing import Node, Room, count, judge

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ["fleet", "gpu-pair"]


def launcher() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def pools(name: str) -> dict[str, PoolConfig]:
    return load(ROOT / "config" / f"{name}.yaml")[0].pools


def machines(bound: str) -> list[Node]:
    """The fleet's nodes at that bound of each type, all free."""
    return [
        Node(kind["labels"], kind["resources"], kind["resources"])
        for name, kind in launcher()["available_node_types"].items()
        for _ in range(kind[bound] + (name == launcher()["head_node_type"]))
    ]


def test_the_launcher_file_satisfies_rays_schema() -> None:
    validate_config(prepare_config(launcher()))


def test_every_machine_has_the_token_and_asks_for_it() -> None:
    # Without a token file `ray start --head` of Ray 2.60 starts an open cluster and only warns.
    file = launcher()
    home = f"/home/{file['auth']['ssh_user']}"
    assert file["file_mounts"][f"{home}/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in line for line in file["initialization_commands"])


@pytest.mark.parametrize(
    "change",
    [
        {"max_workers": "many"},
        {"colour": "red"},
        {"available_node_types": {"head": {"resources": {"CPU": 0.5}, "node_config": {}}}},
    ],
)
def test_rays_schema_would_say_so_if_it_did_not(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        validate_config(prepare_config(launcher() | change))


def test_a_type_of_cpus_alone_is_the_head_and_every_other_has_a_card_and_its_label() -> None:
    types = launcher()["available_node_types"]
    assert "GPU" not in types[launcher()["head_node_type"]]["resources"]
    for name, kind in types.items():
        validate_node_label_syntax(kind["labels"])
        assert kind["min_workers"] <= kind["max_workers"] <= launcher()["max_workers"]
        cards = kind["resources"].get("GPU", 0)
        assert (cards > 0) == (ACCELERATOR_LABEL in kind["labels"]), name
    assert max(kind["resources"].get("GPU", 0) for kind in types.values()) > 1
    assert sum(kind["max_workers"] for kind in types.values()) <= launcher()["max_workers"]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_pool_has_room_on_each_of_its_hardware(config: str) -> None:
    for name, pool in pools(config).items():
        for way in pool.ways:
            verdict = judge(way.demand, machines("max_workers"))
            assert verdict.room is Room.FREE, f"{name}: {verdict.why}"


@pytest.mark.parametrize("config", CONFIGS)
def test_all_workers_fit_the_most_machines_and_the_fewest_can_serve(config: str) -> None:
    for name, pool in pools(config).items():
        assert judge(pool.demand, machines("min_workers")).room is Room.FREE, name
        label = pool.selector[ACCELERATOR_LABEL]
        mine = [n for n in machines("max_workers") if n.labels.get(ACCELERATOR_LABEL) == label]
        assert sum(count(pool.demand.resources, n.total) for n in mine) >= pool.processes, name
