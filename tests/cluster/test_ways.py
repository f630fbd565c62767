"""Laws of the ways that a worker may be started: what Ray decides, and what is decided here."""

from __future__ import annotations

from typing import Any

import pytest

from actors.engine.build import EngineSpec, TierSource
from actors.pool import WorkerGone
from cluster import ways as ways_module
from cluster.config_pools import PoolConfig
from cluster.placement import SpecMaker
from cluster.sizes import worker_env
from cluster.ways import Ways, on_way
from policies.placing import Node
from policies.vocabulary import Tier

KEY = "ray.io/accelerator-type"


def pool(*fallback: dict[str, Any], **keys: Any) -> PoolConfig:
    base = {"tiers": ["full"], "device": "cuda", "num_cpus": 1, "num_gpus": 1, "accelerator": "L4"}
    return PoolConfig.model_validate(base | keys | {"fallback": fallback})


def card(accelerator: str, free: float) -> Node:
    return Node({KEY: accelerator}, {"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": free})


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """The cluster's, for the test to fill."""
    here: list[Node] = []
    monkeypatch.setattr(ways_module, "nodes_here", lambda: here)
    return here


A10G = {"accelerator": "A10G"}
CPUS = {"device": "cpu", "num_cpus": 4}


def test_ray_chooses_among_ways_that_differ_by_labels_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(ways_module, "nodes_here")
    ways = Ways.of_actor(pool(A10G, {"label_selector": {"zone": "a"}}))
    first = ways.pick()
    assert first.accelerator == "L4"
    assert ways.labels(first) == {
        "label_selector": {KEY: "L4"},
        "fallback_strategy": [
            {"label_selector": {KEY: "A10G"}},
            {"label_selector": {"zone": "a"}},
        ],
    }


def test_pool_without_labels_asks_for_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(ways_module, "nodes_here")
    ways = Ways.of_actor(pool(accelerator=None))
    assert ways.labels(ways.pick()) == {}


@pytest.mark.parametrize(
    ("free", "device"),
    [({"L4": 1.0}, "cuda"), ({"L4": 0.0}, "cpu"), ({}, "cpu"), ({"A10G": 1.0}, "cpu")],
)
def test_ways_of_other_amounts_are_chosen_by_what_is_free(
    nodes: list[Node], free: dict[str, float], device: str
):
    nodes += [Node({}, {"CPU": 4}, {"CPU": 4}), *(card(*pair) for pair in free.items())]
    ways = Ways.of_actor(pool(CPUS))
    picked = ways.pick()
    assert picked.device == device
    assert "fallback_strategy" not in ways.labels(picked)


def test_groups_choose_themselves_since_ray_has_no_fallback_for_them(nodes: list[Node]):
    nodes += [card("A10G", 1.0), card("A10G", 1.0)]
    ways = Ways.of_group(pool(A10G, tp=2))
    assert ways.pick().accelerator == "A10G"


def test_what_is_missing_is_said_of_every_way(nodes: list[Node]):
    nodes += [card("L4", 0.0)]
    ways = Ways.of_actor(pool(A10G))
    why = ways.why_not(ways.pick())
    assert why is not None
    assert "GPU with ray.io/accelerator-type=L4: all taken" in why
    assert "; as a fallback wants 1 CPU, 1 GPU with ray.io/accelerator-type=A10G: no node" in why


def test_worker_that_waits_moves_only_to_where_there_is_room(nodes: list[Node]):
    nodes += [card("L4", 0.0)]
    ways = Ways.of_group(pool(A10G, tp=1))
    picked = ways.pick()
    assert picked.accelerator == "L4"
    assert "all taken" in (ways.why_not(picked) or "")
    nodes += [card("A10G", 0.0)]
    assert "all taken" in (ways.why_not(picked) or "")
    nodes += [card("A10G", 1.0)]
    with pytest.raises(WorkerGone, match="it moves to other hardware"):
        ways.why_not(picked)
    nodes += [card("L4", 1.0)]
    assert ways.why_not(picked) is None


def test_room_on_any_way_that_ray_may_choose_is_room(nodes: list[Node]):
    nodes += [card("L4", 0.0), card("A10G", 1.0)]
    ways = Ways.of_actor(pool(A10G))
    assert ways.why_not(ways.pick()) is None


async def test_silence_of_rays_control_service_ends_no_worker(
    nodes: list[Node], caplog: pytest.LogCaptureFixture
):
    def silent() -> bool:
        raise ConnectionError("no answer")

    ways = Ways.of_actor(pool())
    assert await ways.missing(ways.pick(), silent) == "Ray did not say why"
    assert "no answer" in caplog.text
    assert await ways.missing(ways.pick(), lambda: True) is None


def test_worker_is_built_for_the_hardware_that_it_gets():
    whole = pool(CPUS, num_gpus=0.5, threads=3)
    on_card, on_cpus = whole.ways
    engine = EngineSpec({Tier.FULL: TierSource()}, "float32", "cuda", 1, 128, 4)
    spec = SpecMaker("large", whole, engine)()
    assert spec == on_way(spec, on_card)
    assert (spec.engine.device, spec.threads, spec.memory_frac) == ("cuda", 0, 0.5)
    moved = on_way(spec, on_cpus)
    assert (moved.engine.device, moved.threads, moved.memory_frac) == ("cpu", 3, None)
    assert moved.worker_id == spec.worker_id
    assert worker_env(on_cpus)["OMP_NUM_THREADS"] == "3"
