"""Laws of Serve's autoscaling policy: what replicas record, and what is wanted of the pools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.config import AutoscalingContext, AutoscalingPolicy

from actors.usage import Demand, WorkerUsage
from cluster.config import POLICY_PATH, Config, parse
from cluster.scaling import (
    TICK_S,
    decide,
    hold,
    pool_replicas,
    pool_stats,
    router_replicas,
    router_stats,
)

SCALE = {"up_s": 2, "down_s": 10, "target": 0.5}
PAIR: dict[str, Any] = {
    "cheap": {"tiers": ["draft"], "autoscale": {"min": 0, "max": 8} | SCALE},
    "large": {"tiers": ["full"], "replicas": 2, "autoscale": {"min": 1, "max": 8} | SCALE},
}
IDLE, BUSY = WorkerUsage(0.0, 0.0, 16), WorkerUsage(1.0, 1.0, 16)
HALF = WorkerUsage(0.5, 1.0, 16)
Told = list[WorkerUsage | None]


def config_of(pools: dict[str, Any] = PAIR, **more: Any) -> Config:
    return parse({"pools": pools, **more}, "test")


class Serve:
    """Serve's side: contexts of the deployments, targets and state from one call to the next.
    A replica whose usage is None has a worker that loads; `mute` ones have reported nothing."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or config_of()
        self.now = 1_000.0
        self.state: dict[str, dict[str, Any]] = {}
        self.targets = {name: pool.replicas for name, pool in self.config.pools.items()}
        self.told: dict[str, Told] = {name: [IDLE] for name in self.config.pools}
        self.demand: list[dict[str, Demand]] = [{}]
        self.mute: dict[str, int] = {}

    def context(self, name: str, options: dict[str, Any], stats: list[dict[str, float]]) -> Any:
        replicas = [f"{name}-{i}" for i in range(len(stats) + self.mute.get(name, 0))]
        metrics: dict[str, dict[str, Any]] = {}
        for replica, values in zip(replicas, stats, strict=False):
            for key, value in values.items():
                series = [SimpleNamespace(value=-1.0), SimpleNamespace(value=value)]
                metrics.setdefault(key, {})[replica] = series
        return AutoscalingContext(
            deployment_id=name,
            deployment_name=name,
            app_name="viaserve",
            current_num_replicas=len(replicas),
            target_num_replicas=self.targets.get(name, len(replicas)),
            running_replicas=replicas,
            total_num_requests=0.0,
            total_queued_requests=0.0,
            aggregated_metrics=None,
            raw_metrics=metrics,
            capacity_adjusted_min_replicas=0,
            capacity_adjusted_max_replicas=99,
            policy_state=self.state.get(name, {}),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=self.now,
            config=options["autoscaling_config"],
        )

    def contexts(self) -> dict[str, Any]:
        found = {
            name: self.context(name, pool_replicas(self.config, name), list(map(pool_stats, told)))
            for name, told in self.told.items()
        }
        routers = [router_stats(demand) for demand in self.demand]
        return found | {"router": self.context("router", router_replicas(self.config), routers)}

    def tick(self, seconds: float = TICK_S) -> dict[str, int]:
        wanted, self.state = decide(self.contexts())
        self.targets |= wanted
        self.now += seconds
        return wanted

    def ticks(self, number: int) -> dict[str, int]:
        return [self.tick() for _ in range(number)][-1]


def test_pools_start_with_their_replicas_and_the_routers_never_change():
    assert Serve().tick() == {"cheap": 1, "large": 2}
    scaled = pool_replicas(config_of(), "large")["autoscaling_config"]
    assert (scaled.min_replicas, scaled.initial_replicas, scaled.max_replicas) == (1, 2, 8)
    delays = scaled.upscale_delay_s, scaled.downscale_delay_s, scaled.downscale_to_zero_delay_s
    assert delays in ((0, 0, None), (0, 0, 0)), "the law has its own"
    routers = router_replicas(config_of(router={"replicas": 3}))["autoscaling_config"]
    assert (routers.min_replicas, routers.max_replicas) == (3, 3)


def test_without_autoscale_counts_are_as_before():
    fixed = config_of({"all": {"tiers": ["draft", "full"], "replicas": 2}})
    assert pool_replicas(fixed, "all") == {"num_replicas": 2}
    assert router_replicas(fixed) == {"num_replicas": 1}


def test_both_pools_grow_by_the_ratio_of_their_work():
    """Nothing of the new load has reached the cheap pool yet."""
    serve = Serve()
    serve.told = {"cheap": [HALF], "large": [HALF, HALF]}
    assert serve.ticks(5) == {"cheap": 1, "large": 2}
    serve.demand = [{"large": Demand(waiting=16)}]
    assert serve.ticks(5) == {"cheap": 2, "large": 4}


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_the_ratio_is_bounded(ratio: float):
    serve = Serve(config_of(autoscale={"max_ratio": ratio}))
    serve.told = {"cheap": [BUSY], "large": [HALF, HALF]}
    serve.demand = [{"cheap": Demand(waiting=160)}]
    wanted = serve.ticks(5)
    assert wanted == {"cheap": min(2 * ratio, 2), "large": 2}


def test_demand_of_all_routers_counts():
    serve = Serve()
    serve.told["large"] = [HALF, HALF]
    serve.demand = [{"large": Demand(waiting=8)}, {"large": Demand(waiting=8)}]
    assert serve.ticks(5)["large"] == 4


def test_a_long_queue_gets_a_worker():
    serve = Serve()
    serve.told["large"] = [HALF, HALF]
    serve.demand = [{"large": Demand(queue_s=0.1)}, {"large": Demand(queue_s=5.0)}]
    assert serve.ticks(5)["large"] == 3


def test_idle_pools_shrink_and_the_cheap_one_to_none_and_wakes_with_the_load():
    serve = Serve()
    serve.told["large"] = [IDLE, IDLE]
    assert serve.ticks(15) == {"cheap": 0, "large": 1}
    serve.told = {"cheap": [], "large": [HALF]}
    assert serve.ticks(5) == {"cheap": 1, "large": 1}


def test_before_a_worker_of_full_has_reported_nothing_changes():
    serve = Serve()
    serve.told = {"cheap": [BUSY], "large": [None]}
    serve.mute = {"large": 1}
    serve.demand = [{}]
    assert serve.ticks(60) == {"cheap": 1, "large": 2}


def test_replicas_that_have_not_reported_are_no_workers_yet():
    serve = Serve()
    serve.told["large"] = [BUSY, None]
    serve.mute = {"large": 3, "router": 2}
    assert serve.ticks(5)["large"] == 2
    serve.told["large"] = [BUSY] * 5
    assert serve.ticks(5)["large"] == 8


def test_a_device_that_nobody_measures_is_taken_for_busy():
    serve = Serve()
    serve.told["large"] = [WorkerUsage(None, 1.0, 16)] * 2
    assert serve.ticks(5)["large"] == 4


def test_decisions_come_at_the_laws_pace_however_often_serve_asks():
    often, seldom = Serve(), Serve()
    for serve in (often, seldom):
        serve.told = {"cheap": [HALF], "large": [HALF, HALF]}
        serve.tick()
        serve.told["cheap"] = [BUSY]
        serve.demand = [{"large": Demand(waiting=32)}]
    for _ in range(40):
        often.tick(TICK_S / 8)
    seldom.ticks(5)
    assert often.state["large"]["scale"] == seldom.state["large"]["scale"]
    assert often.targets == seldom.targets != Serve().targets


def test_one_pool_of_all_tiers_scales_by_itself():
    scale = {"min": 1, "max": 4} | SCALE
    serve = Serve(config_of({"all": {"tiers": ["draft", "full"], "autoscale": scale}}))
    serve.told["all"] = [BUSY]
    assert serve.ticks(5) == {"all": 2}


def test_a_pool_without_autoscale_keeps_its_number_beside_one_with_it():
    pools = PAIR | {"large": {"tiers": ["full"], "replicas": 2}}
    serve = Serve(config_of(pools))
    serve.told = {"cheap": [BUSY], "large": [BUSY, BUSY]}
    assert serve.ticks(5) == {"cheap": 2, "large": 2}


def test_a_fault_leaves_everything_as_it_is(caplog: pytest.LogCaptureFixture):
    serve = Serve()
    serve.tick()
    before = serve.state
    contexts = serve.contexts()
    contexts["large"].config = None
    wanted, state = decide(contexts)
    assert (wanted, state["large"]) == ({}, before["large"])
    assert "no decision" in caplog.text


def test_without_the_applications_policy_a_pool_stays_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
):
    context = Serve().contexts()["large"]
    replicas, state = hold(context)
    context.policy_state = state
    assert (replicas, hold(context)[0]) == (2, 2)
    assert caplog.text.count(POLICY_PATH) == 1


def test_the_policy_is_whole_where_our_code_is_not(tmp_path: Path):
    """As Serve pickles it for a controller that runs without our working directory."""
    pickled = AutoscalingPolicy(policy_function=POLICY_PATH).get_serialized_policy_def()
    assert pickled is not None
    (tmp_path / "policy").write_bytes(pickled)
    code = (
        "import pathlib, sys, ray.cloudpickle\n"
        "policy = ray.cloudpickle.loads(pathlib.Path('policy').read_bytes())\n"
        "assert not {'cluster', 'policies', 'actors'} & {m.split('.')[0] for m in sys.modules}\n"
        "scaler = policy.__globals__['_decide'].__globals__['law'].Autoscaler()\n"
        "print(policy({}), scaler.cheap.max_workers)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "({}, {}) 1\n", done.stderr
