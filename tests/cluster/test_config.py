"""Laws of the config file: what ships is valid, and every fault names its key in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from cluster.config import DEFAULT_CONFIG, ROOT, ConfigError, parse
from cluster.config_file import load
from policies.autoscale import ScaleSettings
from policies.vocabulary import Tier

SHIPPED = sorted((ROOT / "config").glob("*.yaml"))
MINIMAL: dict[str, Any] = {
    "pools": {"cheap": {"tiers": ["draft"]}, "large": {"tiers": ["full"]}},
}


def fault(caught: pytest.ExceptionInfo[ConfigError]) -> str:
    """The error's text, which is one line."""
    text = str(caught.value)
    assert "\n" not in text
    return text


def write(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def served(args: Any, **http: Any) -> dict[str, Any]:
    """A Serve config file's content with these arguments of ours."""
    return {
        "http_options": http,
        "applications": [{"name": "viaserve", "import_path": "cluster.app:build", "args": args}],
    }


# What ships


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_file_is_a_config_of_ours_and_of_serve(path: Path):
    config, http = load(path)
    assert config.hosts(Tier.FULL)
    schema = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    assert [app.import_path for app in schema.applications] == ["cluster.app:build"]
    assert (schema.http_options.host, schema.http_options.port) == (http["host"], http["port"])


def test_default_is_local_and_can_do_all_three_tiers():
    config, http = load(DEFAULT_CONFIG)
    assert http["host"] == "127.0.0.1"
    assert config.screening_pools == ["local"]
    assert load(ROOT / "config" / "two-pools.yaml")[0].screening_pools == ["cheap"]
    assert config.plan.mode == "auto"


def test_arguments_alone_are_a_config_too(tmp_path: Path):
    config, http = load(write(tmp_path, MINIMAL))
    assert config == parse(MINIMAL, "here") == load(write(tmp_path, served(MINIMAL)))[0]
    assert http == {}


@pytest.mark.parametrize("mode", ["off", "'off'", "two_tier"])
def test_mode_off_needs_no_quotes(tmp_path: Path, mode: str):
    content = f"plan: {{mode: {mode}}}\n" + yaml.safe_dump(MINIMAL)
    assert load(write(tmp_path, content))[0].plan.mode == mode.strip("'")


def scaled(tiers: list[str], **bounds: Any) -> dict[str, Any]:
    """A pool with `autoscale`."""
    return {"tiers": tiers, "autoscale": bounds}


def test_autoscale_gives_a_pool_bounds_and_its_processes_are_those_of_the_most():
    pools = {"cheap": scaled(["draft"], min=0, max=3), "large": {"tiers": ["full"], "replicas": 2}}
    config = parse({"pools": pools}, "test")
    assert config.scales
    assert config.may_sleep == [Tier.DRAFT]
    assert config.pools["cheap"].scale() == ScaleSettings(0, 3)
    assert config.pools["large"].scale() == ScaleSettings(2, 2)
    assert config.on_machine(10).pools["cheap"].num_cpus == 2
    assert parse(config.model_dump(mode="json"), "again") == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_config_survives_the_way_through_serves_own_file(path: Path):
    config = load(path)[0].on_machine(4)
    assert parse(json.loads(json.dumps(config.model_dump(mode="json"))), "again") == config


# What is refused, and how


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"modle": {}}, ["modle: no such key here"]),
        ({"model": {"pth": "x"}}, ["model.pth: no such key here"]),
        ({"pools": {"large": {"tiers": ["full"], "gpus": 1}}}, ["pools.large.gpus: no such key"]),
        ({"model": {"dtype": "int8"}}, ["model.dtype:", "auto", "bfloat16", "float16", "float32"]),
        ({"plan": {"mode": "fast"}}, ["plan.mode:", "off", "two_tier", "three_tier"]),
        ({"plan": {"mode": True}}, ["plan.mode:", "off", "two_tier", "three_tier"]),
        ({"draft": {"kind": "magic"}}, ["draft.kind:", "model", "route", "ngram"]),
        ({"pools": {"x": {"tiers": ["fulll"]}}}, ["pools.x.tiers.0:", "draft", "slim", "full"]),
        ({"pools": {"a b/ü": {"tiers": ["full"]}}}, ["pools:", "letters, digits, _ and -"]),
        ({"pools": {"x": {"tiers": []}}}, ["pools.x.tiers:", "at least 1"]),
        ({"pools": {"x": {"tiers": ["full", "full"]}}}, ["pools.x.tiers: a tier is named twice"]),
        (
            {"pools": {"x": {"tiers": ["full"], "device": "tpu"}}},
            ["pools.x.device:", "must be cpu, cuda, or cuda:N"],
        ),
        ({"pools": {"x": {"tiers": ["full"], "num_cpus": 0}}}, ["pools.x.num_cpus", "auto"]),
        ({"pools": {"x": {"tiers": ["full"], "niceness": 20}}}, ["pools.x.niceness:", "19"]),
        ({"pools": {"x": {"tiers": ["full"], "token_budget": 3}}}, ["pools.x.token_budget:", "4"]),
        ({"pools": {"x": {"tiers": ["full"], "tp": 0}}}, ["pools.x.tp:", "greater than or equal"]),
        (
            {"pools": {"x": {"tiers": ["full", "draft"], "tp": 2}}},
            ["pools.x: tp 2 is for a pool that hosts 'full' alone"],
        ),
        ({"pools": {"x": scaled(["full"], max=0)}}, ["pools.x.autoscale.max:", "equal to 1"]),
        ({"pools": {"x": scaled(["full"])}}, ["pools.x.autoscale.max:", "required"]),
        ({"pools": {"x": scaled(["full"], max=2, target=0)}}, ["autoscale.target:", "than 0"]),
        ({"pools": {"x": scaled(["full"], max=2, up=1)}}, ["pools.x.autoscale.up: no such key"]),
        ({"pools": {"x": scaled(["full"], max=2, down_s=-1)}}, ["pools.x.autoscale.down_s:", "0"]),
        (
            {"pools": {"x": scaled(["full"], min=3, max=2)}},
            ["pools.x.autoscale: min 3 must be at most max 2"],
        ),
        (
            {"pools": {"x": scaled(["full"], min=0, max=2)}},
            ["pools.x: autoscale.min 0 is for pools that do not host 'full'"],
        ),
        (
            {"pools": {"x": scaled(["full"], min=2, max=4)}},
            ["pools.x: replicas 1 must be from autoscale.min 2 to autoscale.max 4"],
        ),
        (
            {"pools": {"x": scaled(["full"], max=2), "y": {"tiers": ["full"]}}},
            ["pools: autoscale is for one pool that hosts 'full'", "x, y with 'full'"],
        ),
        (
            {"pools": MINIMAL["pools"] | {"more": scaled(["draft"], min=0, max=2)}},
            ["pools: autoscale is for", "large with 'full' and cheap, more without"],
        ),
        ({"autoscale": {"max_ratio": 0}}, ["autoscale.max_ratio:", "greater than 0"]),
        ({"pools": {"x": {"tiers": ["full"], "drain_s": -1}}}, ["pools.x.drain_s:", "0"]),
        ({"pools": {}}, ["pools:", "at least 1"]),
        ({"model": {"context": 0}}, ["model.context:", "greater than or equal to 1"]),
        ({"model": {"context": "many"}}, ["model.context:", "integer"]),
        ({"model": []}, ["model: must be a mapping"]),
        ({"pools": {"x": {"tiers": ["full"], "fallback": {}}}}, ["x.fallback: must be a list"]),
        ({"pools": {"x": {"tiers": ["full"], "label_selector": "a"}}}, ["must be a mapping"]),
        ({"pools": {"x": {"tiers": ["full"], "num_cpus": float("inf")}}}, ["x.num_cpus: must be"]),
        ({"liveness": {"dead_s": float("inf")}}, ["liveness.dead_s:", "finite"]),
        ({"router": {"step_timeout_s": 0}}, ["router.step_timeout_s:", "greater than 0"]),
        (
            {"liveness": {"heartbeat_s": 6}},
            ["liveness: silence_s must be at least 2 heartbeat_s, and dead_s no shorter"],
        ),
        ({"liveness": {"dead_s": 5}}, ["liveness: silence_s must be at least 2 heartbeat_s"]),
        ({"control": {"accelerator": "L5"}}, ["control.accelerator: Ray knows no L5"]),
        ({"router": {"max_queued": -1}}, ["router.max_queued:", "greater than or equal to 0"]),
        ({"plan": {"gamma": 17}}, ["plan:", "gamma and block must be at most max_gamma"]),
        ({"plan": {"block": 33}}, ["plan:", "gamma and block must be at most"]),
        ({"draft": {"kind": "model"}}, ["draft:", "path is needed by kind model"]),
        ({"draft": {"kind": "route"}}, ["draft:", "path is needed by kind route"]),
        ({"draft": {"path": "x"}}, ["draft:", "path is not used by kind ngram"]),
        ({"draft": {"ngram_longest": 1}}, ["draft:", "ngram_shortest must be at most"]),
        ({"slim": {}}, ["slim.route:", "required"]),
    ],
    ids=lambda value: None if isinstance(value, list) else yaml.safe_dump(value, width=1e9).strip(),
)
def test_fault_names_its_key_and_what_is_allowed(changes: dict[str, Any], says: list[str]):
    with pytest.raises(ConfigError) as caught:
        parse(MINIMAL | changes, "file.yaml")
    text = fault(caught)
    assert text.startswith("config file.yaml: ")
    assert [part for part in says if part not in text] == []


def test_all_faults_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse(MINIMAL | {"model": {"context": 0, "colour": "red"}, "ruoter": {}}, "file.yaml")
    assert fault(caught).count(";") == 2


def pools(*layout: str) -> dict[str, Any]:
    return {f"p{i}": {"tiers": tiers.split("+")} for i, tiers in enumerate(layout)}


ROUTE = {"route": "route.json"}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"pools": pools("draft")}, "no pool hosts the tier 'full'"),
        ({"pools": pools("draft", "slim"), "slim": ROUTE}, "no pool hosts the tier 'full'"),
        ({"pools": pools("draft+slim", "full")}, "section 'slim' is missing"),
        ({"pools": pools("draft", "full"), "draft": None}, "section 'draft' is missing"),
        (
            {"pools": pools("full"), "plan": {"mode": "two_tier"}},
            "plan.mode two_tier needs a pool with tier 'draft'",
        ),
        (
            {"pools": pools("draft", "full"), "plan": {"mode": "three_tier"}},
            "plan.mode three_tier needs a pool with tier 'slim'",
        ),
        (
            {"pools": pools("draft", "full"), "plan": {"mode": "three_tier"}, "slim": ROUTE},
            "plan.mode three_tier needs a pool with tier 'slim'",
        ),
        ({"pools": pools("draft", "slim", "full"), "slim": ROUTE}, "'slim' must share a pool"),
        ({"pools": pools("draft", "slim+full"), "slim": ROUTE}, "'slim' must share a pool"),
        (
            {"pools": pools("slim", "full"), "slim": ROUTE, "plan": {"mode": "off"}},
            "'slim' must share a pool",
        ),
    ],
)
def test_impossible_layout_is_refused_with_the_reason(args: dict[str, Any], says: str):
    with pytest.raises(ConfigError) as caught:
        parse(args, "file.yaml")
    assert says in fault(caught)


@pytest.mark.parametrize(
    "args",
    [
        {"pools": pools("full"), "plan": {"mode": "off"}},
        {"pools": pools("full"), "plan": {"mode": "off"}, "draft": None},
        {"pools": pools("draft+full")},
        {"pools": pools("draft", "draft+slim", "full"), "slim": ROUTE},
        {"pools": pools("draft+slim+full"), "slim": ROUTE, "plan": {"mode": "three_tier"}},
        {"pools": pools("draft", "full", "full"), "slim": ROUTE},
    ],
)
def test_possible_layout_is_accepted(args: dict[str, Any]):
    assert parse(args, "file.yaml").hosts(Tier.FULL)


# Files


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [1", "not YAML"),
        ("a: b: c", "not YAML"),
        ("model: {name: 2020-13-45}", "not YAML"),
        ("just text", "not a mapping"),
        ("[1, 2]", "not a mapping"),
        ("", "not a mapping"),
        ("applications: 5", "applications:"),
        ("applications: []", "applications.0.import_path must be cluster.app:build"),
        ("applications: [{import_path: a.b:c}]", "applications.0.import_path must be"),
        (yaml.safe_dump(served([1])), "applications.0.args: not a mapping"),
        (yaml.safe_dump(served("x")), "applications.0.args: not a mapping"),
        (yaml.safe_dump(served(None)), "pools: Field required"),
        (yaml.safe_dump(served({})), "pools: Field required"),
        (yaml.safe_dump(served(MINIMAL) | {"http_options": 5}), "http_options:"),
        (yaml.safe_dump(served(MINIMAL) | {"http_option": {}}), "http_option: no such key here"),
        (yaml.safe_dump(served(MINIMAL, prot=1)), "http.prot: no such key here, only"),
        (yaml.safe_dump(MINIMAL | {"http": 5}), "http: not a mapping"),
        ("models: {}\npools: {}", "this is a fleet file, for `advise` and `simulate`"),
    ],
)
def test_file_of_another_kind_is_refused(tmp_path: Path, content: str, says: str):
    path = write(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert fault(caught).startswith(f"config {path}: ")
    assert says in fault(caught)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path):
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00name: \x80")
    with pytest.raises(ConfigError, match="not YAML") as caught:
        load(tmp_path / "config.yaml")
    fault(caught)


@pytest.mark.parametrize(
    ("name", "says"), [("missing.yaml", "No such file"), (".", "Is a directory")]
)
def test_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, says: str):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / name)
    assert str(tmp_path) in fault(caught)
    assert says in fault(caught)


# Overrides


def test_override_wins_over_the_file_and_keeps_the_rest(tmp_path: Path):
    path = write(tmp_path, served(MINIMAL | {"model": {"name": "m", "context": 64}}))
    config, _ = load(path, ["model.context=128", "model.context=256", "plan.mode=off"])
    assert (config.model.name, config.model.context) == ("m", 256)
    assert config.plan.mode == "off"


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("model.dtype=float32", lambda c: c.model.dtype, "float32"),
        ("model.aliases=[a, b]", lambda c: c.model.aliases, ("a", "b")),
        ("model.name=a=b", lambda c: c.model.name, "a=b"),
        ("router.worker_wait_s=1.5", lambda c: c.router.worker_wait_s, 1.5),
        ("pools.large.threads=3", lambda c: c.pools["large"].threads, 3),
        ("pools.large.resources.a100=1", lambda c: c.pools["large"].resources, {"a100": 1.0}),
        ("pools.large.tiers=[draft, full]", lambda c: c.hosts(Tier.DRAFT), ["cheap", "large"]),
        ("pools.more.tiers=[full]", lambda c: c.hosts(Tier.FULL), ["large", "more"]),
        ("slim={route: r.json}", lambda c: c.slim.route, "r.json"),
        ("slim.route=r.json", lambda c: c.slim.route, "r.json"),
        ("ingress.metrics=off", lambda c: c.ingress.metrics, "off"),
        ("ingress.default_max_tokens=", lambda c: c.ingress.default_max_tokens, None),
    ],
)
def test_override_reaches_its_key(tmp_path: Path, override: str, read, expected):
    config, _ = load(write(tmp_path, MINIMAL), [override])
    assert read(config) == expected


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.dtype", "give key.path=value"),
        ("=1", "give key.path=value"),
        ("model.=1", "give key.path=value"),
        ("model..dtype=float32", "give key.path=value"),
        ("", "give key.path=value"),
        ("model.name=[a", "the value is not YAML"),
        ("model.name=2020-13-45", "the value is not YAML"),
        ("pools.large.tiers.0=full", "tiers is not a section"),
        ("model.dtype=int8", "model.dtype:"),
        ("model.colour=red", "model.colour: no such key here"),
        ("pools.large=5", "pools.large:"),
        ("pools=5", "pools:"),
        ("http=5", "http: not a mapping"),
        ("http.port=0", "http.port: Input should be greater than or equal to 1"),
        ("http.port=65536", "http.port: Input should be less than or equal to 65535"),
        ("http.port=abc", "http.port: Input should be a valid integer"),
        ("http.prot=8001", "http.prot: no such key here, only"),
        ("http.request_timeout_s=soon", "http.request_timeout_s: Input should be a valid number"),
        ("http.host=", "http.host: Input should be a valid string"),
        ("pools.large.device=cuda", "pools.large: device cuda needs num_gpus above 0"),
        ("lossy.gate.theta_accept=0.4", "1 >= theta_accept > theta_escalate >= 0"),
        ("lossy.gate.theta_accept=true", "lossy.gate.theta_accept: Input should be a valid number"),
        ("lossy.min_theta_accept=0.9", "gate.theta_accept must be at least min_theta_accept"),
        ("lossy.alpha=0.95", "alpha must be at most max_alpha"),
        ("lossy.audit.epsilon=2", "epsilon must lie between 0 and 1"),
        ("lossy.audit.levels=1000000", "lossy.audit.levels: Input should be less than or equal"),
    ],
)
def test_bad_override_is_refused(tmp_path: Path, override: str, says: str):
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, MINIMAL), [override])
    assert says in fault(caught)


def test_http_overrides_reach_the_http_options_only(tmp_path: Path):
    path = write(tmp_path, served(MINIMAL, host="127.0.0.1", port=8000))
    config, http = load(path, ["http.port=9000", "http.root_path=/llm"])
    assert http == {"host": "127.0.0.1", "port": 9000, "root_path": "/llm"}
    assert config == load(path)[0]
