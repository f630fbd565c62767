"""Where a worker goes: on its pool's own hardware, or on a fallback.

Where the ways differ by labels alone, Ray's own `fallback_strategy` decides. It knows neither
other amounts nor placement groups: there the first way with room is taken here, and a worker
that waits moves once another way has room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from actors.pool import WorkerGone
from actors.worker import WorkerSpec
from cluster.config_pools import PoolConfig
from cluster.nodes import nodes_here
from cluster.sizes import threads_of
from policies.placing import Room, choose, judge

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways that a worker may be started, best first, and how many of them Ray may choose
    among by itself."""

    all: tuple[PoolConfig, ...]
    rays: int = 1

    @classmethod
    def of_actor(cls, pool: PoolConfig) -> Ways:
        """Of a worker that is one actor."""
        ways = pool.ways
        alike = all(_but_for_labels(way) == _but_for_labels(ways[0]) for way in ways)
        return cls(ways, len(ways) if alike else 1)

    @classmethod
    def of_group(cls, pool: PoolConfig) -> Ways:
        """Of a worker that is a placement group of actors."""
        return cls(pool.ways)

    def pick(self) -> PoolConfig:
        """The way to start a worker now."""
        if self.rays == len(self.all):
            return self.all[0]
        return self.all[choose([way.demand for way in self.all], nodes_here())]

    def labels(self, picked: PoolConfig) -> dict[str, Any]:
        """Options of an actor on that way."""
        options: dict[str, Any] = {}
        if picked.selector:
            options["label_selector"] = picked.selector
        if self.rays > 1:
            others = [{"label_selector": way.selector} for way in self.all[1:]]
            options["fallback_strategy"] = others
        return options

    def why_not(self, picked: PoolConfig) -> str | None:
        """What keeps a worker on that way from its place, and on the others; None where it has
        room there. WorkerGone where another way has, so that it is started there."""
        nodes = nodes_here()
        verdicts = [judge(way.demand, nodes) for way in self.all]
        mine = verdicts if self.rays == len(self.all) else [verdicts[self.all.index(picked)]]
        if any(verdict.room is Room.FREE for verdict in mine):
            return None
        if any(verdict.room is Room.FREE for verdict in verdicts):
            raise WorkerGone(f"it moves to other hardware, since it {mine[0].why}")
        first, *others = (verdict.why for verdict in verdicts)
        return "; ".join([first, *(f"as a fallback {why}" for why in others)])

    async def missing(self, picked: PoolConfig, is_placed: Callable[[], bool]) -> str | None:
        """See WorkerPort."""
        try:
            # Questions to Ray's control service, each a millisecond when it is well.
            if await asyncio.to_thread(is_placed):
                return None
            return await asyncio.to_thread(self.why_not, picked)
        except WorkerGone:
            raise
        except Exception:
            logger.exception("Ray did not say where the worker is")
            return "Ray did not say why"


def on_way(spec: WorkerSpec, way: PoolConfig) -> WorkerSpec:
    """The worker as it is on that hardware."""
    return replace(
        spec,
        engine=replace(spec.engine, device=way.device),
        threads=threads_of(way) if way.device == "cpu" else 0,
        memory_frac=way.memory_share,
        price_per_hour=way.price_per_hour,
    )


def _but_for_labels(way: PoolConfig) -> PoolConfig:
    other = {"accelerator": None, "label_selector": {}, "price_per_hour": None}
    return way.model_copy(update=other)
