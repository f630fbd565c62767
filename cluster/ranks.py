"""Starts the workers that are groups of Ray actors: one model over the ranks of a group.

Rank 0 is the worker that pools and routers know. A rank that dies takes the others with it by
itself (`actors.engine.ranks`); what is left here is to see one that dies before they have met.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util import get_node_ip_address
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.engine.ranks.group import GroupSpec, open_store
from actors.messages import WorkerReport
from actors.pool import WorkerGone, WorkerPort
from actors.worker import Follower, WorkerSpec
from cluster.config_pools import PoolConfig
from cluster.nodes import group_is_placed
from cluster.placement import (
    RayWorkers,
    actor_options,
    close_worker,
    reason_of,
    report_of,
    tidy,
    worker_actor,
)
from cluster.ways import Ways, on_way


def workers_of(pool: PoolConfig) -> WorkerPort:
    """How a pool starts its workers."""
    return RayWorkers(pool) if pool.tp == 1 else RayRankGroups(pool)


@dataclass(frozen=True, slots=True)
class _Group:
    """What belongs to a worker besides its rank 0. `way`: the hardware it is meant for; `store`
    is where its ranks meet; `ended` is done as soon as a follower's process has ended."""

    way: PoolConfig
    placed: PlacementGroup
    followers: list[Any]
    store: Any
    ended: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class RayRankGroups:
    """Workers of a pool with `tp` above 1; a WorkerPort, like RayWorkers."""

    pool: PoolConfig
    _groups: dict[Any, _Group] = field(default_factory=dict)

    def spawn(self, spec: WorkerSpec) -> Any:
        """Start a group in a placement group of its own, one bundle a rank; gives rank 0."""
        way = Ways.of_group(self.pool).pick()
        host = get_node_ip_address()
        store = open_store(host)
        meeting = GroupSpec(way.tp, host, store.port, secrets.token_hex(16))
        spec = on_way(replace(spec, ranks=meeting), way)
        placed = _place(way, spec.worker_id)
        try:
            leader = worker_actor().options(**_options(way, placed, 0)).remote(spec)
            followers = [
                _follower_actor().options(**_options(way, placed, rank)).remote(spec, rank)
                for rank in range(1, way.tp)
            ]
        except BaseException:  # nobody else knows of it
            remove_placement_group(placed)
            raise
        ends = [asyncio.wrap_future(f.follow.remote().future()) for f in followers]
        ended = asyncio.gather(*ends)
        ended.add_done_callback(_looked_at)
        self._groups[leader] = _Group(way, placed, followers, store, ended)
        return leader

    async def report(self, handle: Any) -> WorkerReport:
        """See WorkerPort; a group without one of its ranks is gone as a whole."""
        ended = self._groups[handle].ended
        asked = asyncio.ensure_future(report_of(handle))
        try:
            await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not asked.done():
                raise WorkerGone(f"a rank of its group: {reason_of(ended.exception())}")
            return await asked
        finally:
            asked.cancel()

    async def missing(self, handle: Any) -> str | None:
        """See WorkerPort."""
        group = self._groups[handle]
        is_placed = partial(group_is_placed, group.placed)
        return await Ways.of_group(self.pool).missing(group.way, is_placed)

    def tidy(self, handle: Any) -> None:
        """See WorkerPort."""
        tidy(handle)

    async def close(self, handle: Any) -> None:
        """See WorkerPort."""
        await close_worker(handle)

    def kill(self, handle: Any) -> None:
        """End all ranks at once, and give back what they were placed on."""
        group = self._groups.pop(handle)
        group.ended.cancel()
        for actor in (handle, *group.followers):
            with contextlib.suppress(RayActorError):
                ray.kill(actor)
        remove_placement_group(group.placed)


def _place(pool: PoolConfig, name: str) -> PlacementGroup:
    """One bundle a rank, as few nodes as possible, or one."""
    demand = pool.demand
    labels = [dict(demand.selector)] * pool.tp if demand.selector else None
    return placement_group(
        [dict(demand.resources)] * pool.tp,
        strategy="STRICT_PACK" if pool.one_node else "PACK",
        name=name,
        bundle_label_selector=labels,  # pyright: ignore[reportArgumentType]
    )


def _options(pool: PoolConfig, placed: PlacementGroup, rank: int) -> dict[str, Any]:
    strategy = PlacementGroupSchedulingStrategy(placed, placement_group_bundle_index=rank)
    return actor_options(pool) | {"scheduling_strategy": strategy}


def _follower_actor() -> Any:
    remote: Any = ray.remote
    return remote(Follower)


def _looked_at(ended: asyncio.Future[Any]) -> None:
    """A follower's end is seen by its effect; nobody needs to await it."""
    if not ended.cancelled():
        ended.exception()
