"""Laws of a worker that is a group of Ray actors: it steps as one, ends as one, is replaced."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray.util import placement_group_table

from actors.liveness import Liveness
from actors.messages import Waiting, WorkerEntry
from actors.pool import Pool, WorkerGone
from cluster.config import ROOT
from cluster.config_pools import PoolConfig
from cluster.placement import RayWorkers, SpecMaker
from cluster.ranks import RayRankGroups, workers_of
from policies.vocabulary import Tier
from tests.engine.toys import save_toy
from tests.ranks.groups import engine_spec

LIMIT_S = 1800.0


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A Ray of this machine's own, ended behind the tests."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    yield
    ray.shutdown()


class Registry:
    """Remembers who is listed, and tells when that changes."""

    def __init__(self) -> None:
        self.listed: dict[str, WorkerEntry] = {}
        self._told = asyncio.Condition()

    async def announce(self, entry: WorkerEntry, ttl_s: float) -> None:
        await self._tell(lambda: self.listed.update({entry.report.worker_id: entry}))

    async def wait(self, waiting: Waiting, ttl_s: float) -> None:
        assert waiting.why

    async def withdraw(self, worker_id: str) -> None:
        await self._tell(lambda: self.listed.pop(worker_id, None))

    async def _tell(self, change: Callable[[], object]) -> None:
        async with self._told:
            change()
            self._told.notify_all()

    async def one(self, other_than: str = "") -> WorkerEntry:
        """The only worker listed, once there is one of another name."""
        async with asyncio.timeout(LIMIT_S), self._told:
            await self._told.wait_for(lambda: self.listed and other_than not in self.listed)
        [entry] = self.listed.values()
        return entry


def are_over(pids: tuple[int, ...]) -> bool:
    """Whether these processes, children of Ray, ended."""
    alive = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return not psutil.wait_procs(alive, timeout=LIMIT_S)[1]


def live_placement_groups() -> list[str]:
    table = placement_group_table().values()
    return [group["name"] for group in table if group["state"] != "REMOVED"]


async def test_a_killed_rank_takes_the_group_and_the_pool_starts_another(
    ray_here: None, tmp_path: Path
) -> None:
    path = save_toy(tmp_path, "llama", num_key_value_heads=3, num_hidden_layers=1)
    config = PoolConfig(tiers=(Tier.FULL,), num_cpus=1, tp=2, one_node=True)
    groups, registry = RayRankGroups(config), Registry()
    make_spec = SpecMaker("large", config, engine_spec(path))
    pool = Pool(make_spec, groups, registry, Liveness(heartbeat_s=0.1))
    supervised = asyncio.create_task(pool.supervise())
    try:
        first = (await registry.one()).report
        assert len(set(first.rank_pids)) == 2
        assert first.pid == first.rank_pids[0]
        assert first.row_invariant
        assert live_placement_groups() == [first.worker_id]
        os.kill(first.rank_pids[1], signal.SIGKILL)
        second = (await registry.one(other_than=first.worker_id)).report
        assert are_over(first.rank_pids)
        assert not set(second.rank_pids) & set(first.rank_pids)
        assert (pool.starts, pool.failures) == (2, 1)
        assert live_placement_groups() == [second.worker_id]
    finally:
        supervised.cancel()
        await asyncio.gather(supervised, return_exceptions=True)
    assert are_over(second.rank_pids)
    assert registry.listed == {}
    assert live_placement_groups() == []


async def test_what_keeps_a_rank_from_loading_is_said(ray_here: None, tmp_path: Path) -> None:
    config = PoolConfig(tiers=(Tier.FULL,), num_cpus=1, tp=2)
    groups = RayRankGroups(config)
    handle = groups.spawn(SpecMaker("large", config, engine_spec(tmp_path))())
    with pytest.raises(WorkerGone, match=r"no config\.json"):
        await groups.report(handle)
    groups.kill(handle)


async def test_a_group_that_cannot_be_started_leaves_no_place_taken(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise ValueError("Ray takes no such option")

    monkeypatch.setattr("cluster.ranks._follower_actor", refuse)
    config = PoolConfig(tiers=(Tier.FULL,), num_cpus=1, tp=2)
    with pytest.raises(ValueError, match="no such option"):
        RayRankGroups(config).spawn(SpecMaker("large", config, engine_spec(tmp_path))())
    assert live_placement_groups() == []


def test_a_pool_of_one_process_a_worker_needs_no_group() -> None:
    assert isinstance(workers_of(PoolConfig(tiers=(Tier.FULL,), num_cpus=1)), RayWorkers)
