"""Judges side by side: Ray actors that each hold the model, on a Ray of one's own or a cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util import ActorPool

from actors.engine.route import ModelError, Route
from cluster.trio.likeness import Likeness
from cluster.trio.routes.judge import Bench, Judge
from cluster.trio.routes.rows import Rows

JudgeAll = Callable[[Sequence[Route], int], Iterator[Likeness]]
"""(candidates, number of the set) -> their likeness in the same order, each once it is there."""
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Staff:
    """How many judges, with what; `address`: of a running Ray cluster, None for one's own here.
    On a cluster the model folder has to be on each of its machines."""

    workers: int
    num_gpus: float = 0.0
    address: str | None = None


@contextmanager
def judges(bench: Bench, sets: Sequence[Rows], staff: Staff) -> Iterator[JudgeAll]:
    """Start the judges; they end with the block. ModelError where one of them is lost."""
    _start_ray(bench, staff)
    try:
        shared = ray.put(tuple(sets))
        actor = ray.remote(Judge).options(num_cpus=bench.threads, num_gpus=staff.num_gpus)
        pool = ActorPool([actor.remote(bench, shared) for _ in range(staff.workers)])

        def judge_all(routes: Sequence[Route], which: int) -> Iterator[Likeness]:
            ask: Any = pool.map
            return ask(lambda judge, route: judge.judge.remote(route, which), routes)

        yield judge_all
    except RayActorError as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"a judge was lost; run again to go on: {reason}") from error
    finally:
        ray.shutdown()


def _start_ray(bench: Bench, staff: Staff) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    threads = str(bench.threads)
    env = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        # Judges share the machine: threads that spin at a barrier would hold each other up.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "HF_HUB_OFFLINE": "1",
    }
    if staff.address is not None:
        runtime_env = {"env_vars": env, "working_dir": str(_ROOT)}
        ray.init(address=staff.address, runtime_env=runtime_env, log_to_driver=False)
        return
    ray.init(
        address="local",
        num_cpus=staff.workers * bench.threads,
        runtime_env={"env_vars": env},
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
