"""Laws of placement on a real Ray of several nodes: own hardware first, then the fallback; who
has no place says why, and gets one when a node comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from actors.engine.build import EngineSpec, TierSource
from actors.liveness import Liveness
from actors.messages import Waiting, WorkerEntry
from actors.pool import Pool
from cluster.config import ROOT
from cluster.config_pools import PoolConfig
from cluster.nodes import nodes_here
from cluster.placement import RayWorkers, SpecMaker
from cluster.ranks import RayRankGroups
from policies.vocabulary import Tier

LIMIT_S = 1800.0
L4 = {"ray.io/accelerator-type": "L4"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs to spare and one node that says it has an L4; ended behind the tests."""
    here = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    here.add_node(num_cpus=2, num_gpus=1, labels=L4)
    ray.init(
        address=here.address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    yield here
    ray.shutdown()
    here.shutdown()


class Registry:
    """Remembers what is said of workers, and wakes who waits for it."""

    def __init__(self) -> None:
        self.listed: dict[str, WorkerEntry] = {}
        self.waiting: dict[str, Waiting] = {}
        self._told = asyncio.Condition()

    async def announce(self, entry: WorkerEntry, ttl_s: float) -> None:
        self.waiting.pop(entry.report.worker_id, None)
        await self._tell(self.listed, entry.report.worker_id, entry)

    async def wait(self, waiting: Waiting, ttl_s: float) -> None:
        await self._tell(self.waiting, waiting.worker_id, waiting)

    async def withdraw(self, worker_id: str) -> None:
        self.listed.pop(worker_id, None)
        self.waiting.pop(worker_id, None)

    async def _tell(self, where: dict[str, Any], worker_id: str, what: Any) -> None:
        async with self._told:
            where[worker_id] = what
            self._told.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S), self._told:
            await self._told.wait_for(holds)

    def says(self, text: str) -> bool:
        """Whether all that wait say so."""
        waits = self.waiting.values()
        return bool(waits) and all(text in w.why and not w.placed for w in waits)


def config(**keys: Any) -> PoolConfig:
    """Prompt lookup, which loads in no time, on what is called a GPU here."""
    base = {"tiers": ["draft"], "num_cpus": 0.5, "num_gpus": 1, "accelerator": "L4"}
    return PoolConfig.model_validate(base | keys)


@asynccontextmanager
async def supervised(
    pool: PoolConfig, port: type[RayWorkers] | type[RayRankGroups] = RayWorkers
) -> AsyncIterator[Registry]:
    """A pool replica of it; its worker has ended at the end."""
    engine = EngineSpec({Tier.DRAFT: TierSource()}, "float32", pool.device, 1, 128, 4)
    registry, workers = Registry(), port(pool)
    supervisor = Pool(SpecMaker("p", pool, engine), workers, registry, Liveness(heartbeat_s=0.2))
    task = asyncio.create_task(supervisor.supervise())
    try:
        yield registry
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def free_gpus(count: float) -> None:
    """Until what ended has given back what it had."""
    async with asyncio.timeout(LIMIT_S):
        while sum(node.free.get("GPU", 0.0) for node in nodes_here()) != count:
            await asyncio.sleep(0.1)


async def served(pool: PoolConfig) -> str:
    """The device of a worker of that pool, once it serves."""
    async with supervised(pool) as registry:
        await registry.until(lambda: bool(registry.listed))
        [entry] = registry.listed.values()
        return entry.report.device


async def test_nodes_say_their_labels_and_what_is_free(cluster: Cluster) -> None:
    await free_gpus(1.0)
    assert [
        (n.labels["ray.io/accelerator-type"], n.total["CPU"], n.free["CPU"])
        for n in nodes_here()
        if "GPU" in n.total
    ] == [("L4", 2.0, 2.0)]


@pytest.mark.slow
async def test_two_halves_of_a_card_serve_and_a_third_waits_for_one(cluster: Cluster) -> None:
    half = config(num_gpus=0.5)
    async with supervised(half) as first, supervised(half) as second:
        await first.until(lambda: bool(first.listed))
        await second.until(lambda: bool(second.listed))
        async with supervised(half) as third:
            await third.until(
                lambda: third.says("0.5 GPU with ray.io/accelerator-type=L4: all taken")
            )
            assert third.says("0 of 1 GPU")
    await free_gpus(1.0)
    assert await served(half) == "cpu"
    await free_gpus(1.0)


async def test_pool_that_no_node_can_host_says_so_and_serves_when_one_comes(
    cluster: Cluster,
) -> None:
    async with supervised(config(accelerator="H100")) as registry:
        lacks = "no node has ray.io/accelerator-type=H100 (there is L4)"
        await registry.until(lambda: registry.says(lacks))
        node = cluster.add_node(num_cpus=1, num_gpus=1, labels={"ray.io/accelerator-type": "H100"})
        await registry.until(lambda: bool(registry.listed))
        assert registry.waiting == {}
    cluster.remove_node(node)
    await free_gpus(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [{}, {"num_gpus": 0.5}], ids=["by labels", "by amounts too"])
async def test_fallback_is_taken_where_the_own_hardware_is_not_there_or_taken(
    cluster: Cluster, number: dict[str, Any]
) -> None:
    async with supervised(
        config(accelerator="H100", fallback=[{"accelerator": "L4", **number}])
    ) as registry:
        await registry.until(lambda: bool(registry.listed))
    await free_gpus(1.0)


@pytest.mark.slow
async def test_worker_that_waits_moves_to_a_fallback_of_other_amounts(cluster: Cluster) -> None:
    on_cpus = config(fallback=[{"device": "cpu", "num_cpus": 2, "num_gpus": 0}])
    async with supervised(config()) as first:
        await first.until(lambda: bool(first.listed))
        async with supervised(on_cpus) as second:
            # The card is taken, and so is a part of the two CPUs.
            await second.until(lambda: second.says("as a fallback wants 2 CPU: all taken"))
            node = cluster.add_node(num_cpus=2)
            await second.until(lambda: bool(second.listed))
    cluster.remove_node(node)
    await free_gpus(1.0)


async def test_group_without_a_place_says_why(cluster: Cluster) -> None:
    split = config(tiers=["full"], tp=2, one_node=True)
    async with supervised(split, RayRankGroups) as registry:
        lacks = "no node with these labels has room for more than 1 of them"
        await registry.until(lambda: registry.says(lacks))
    await free_gpus(1.0)
