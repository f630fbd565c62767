"""Measures the router's way to a worker and back: an empty step, on a Ray of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import time

import ray

from actors.engine.build import EngineSpec, TierSource
from actors.messages import StepRequest
from cluster.config_pools import PoolConfig
from cluster.placement import RayWorkers, SpecMaker, call_worker
from policies.vocabulary import Tier


def measure(count: int) -> list[float]:
    """Seconds of each of `count` calls, after a tenth as many uncounted ones."""
    # A worker of prompt lookup loads no model; the call's way is the same.
    engine = EngineSpec({Tier.DRAFT: TierSource()}, "float32", "cpu", 1, 128, 4)
    pool = PoolConfig(tiers=(Tier.DRAFT,), num_cpus=1)
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        workers = RayWorkers(pool)
        handle = workers.spawn(SpecMaker("hop", pool, engine)())
        return asyncio.run(_calls(workers, handle, count))
    finally:
        ray.shutdown()


async def _calls(workers: RayWorkers, handle: object, count: int) -> list[float]:
    await workers.report(handle)
    taken: list[float] = []
    for _ in range(count + count // 10):
        begin = time.perf_counter()
        await call_worker(handle, StepRequest(()))
        taken.append(time.perf_counter() - begin)
    return taken[count // 10 :]


def render(taken: list[float]) -> str:
    """One line: percentiles in milliseconds."""
    p50_s, p90_s = _percentiles(taken)
    told = f"p50 {1000 * p50_s:.2f} ms, p90 {1000 * p90_s:.2f} ms"
    return f"empty step, {len(taken)} calls: {told}"


def to_json(taken: list[float]) -> str:
    """The same as one JSON line, in seconds."""
    p50_s, p90_s = _percentiles(taken)
    return json.dumps({"calls": len(taken), "p50_s": p50_s, "p90_s": p90_s})


def _percentiles(taken: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(taken, n=100)
    return cuts[49], cuts[89]
