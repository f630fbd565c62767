"""A router's look at its pools from time to time: how busy they are, what that makes their
tiers cost, and which worker is slower than the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from actors.lanes import Lane
from actors.pace import TYPICAL
from policies.pressure import PoolLoad, Pressure, PressureSettings
from policies.prices import PoolLook, Prices
from policies.vocabulary import Tier

_SMOOTHING = 0.3
_SLOW = 2.0
"""So many times slower than its pool's median, or than it was, a worker is left if that pays."""
_FORGIVES = 0.95
"""Nobody measures a worker that all avoid: what is held against it fades at each look."""


@dataclass(slots=True)
class _Seen:
    """A lane's totals at the last look."""

    steps: int = 0
    busy_s: float = 0.0
    item_s: float = 0.0


class PoolWatch:
    """`free`: tiers that take none of a worker's time. `skipped`, by pool: proposals that were
    left out because the worker was busy; `late`: steps past their deadline."""

    def __init__(self, settings: PressureSettings | None, free: frozenset[Tier]) -> None:
        self._prices = None if settings is None else Prices(settings)
        self._free = free
        self._seen: dict[str, _Seen] = {}
        self._crowds: dict[str, float] = {}
        self._loads: dict[str, PoolLoad] = {}
        self._pools: dict[str, list[Lane]] = {}
        self.skipped: Counter[str] = Counter()
        self.late: Counter[str] = Counter()

    def look(self, now: float, lanes: Collection[Lane], load: int) -> dict[Tier, Pressure]:
        """Once a second or so; what each tier is under. `load`: sessions of a full worker."""
        pools: dict[str, list[Lane]] = {}
        for lane in lanes:
            pools.setdefault(lane.report.pool, []).append(lane)
        self._pools = pools
        looks: dict[str, PoolLook] = {}
        for name, members in pools.items():
            self._compare(members)
            self._count(name, members, load)
            self._loads[name] = _load(members)
            tiers = frozenset(tier for lane in members for tier in lane.tiers) - self._free
            looks[name] = PoolLook(tiers, self._loads[name], self._crowds.get(name, 1.0))
        gone = self._seen.keys() - {lane.worker_id for lane in lanes}
        for worker_id in gone:
            del self._seen[worker_id]
        return {} if self._prices is None else self._prices.follow(now, looks)

    def _count(self, name: str, members: list[Lane], load: int) -> None:
        busy_s = item_s = 0.0
        for lane in members:
            before = self._seen.get(lane.worker_id, _Seen())
            busy_s += lane.busy_s - before.busy_s
            item_s += lane.item_s - before.item_s
            if lane.steps == before.steps and not lane.in_flight:
                lane.wait_s *= 1 - _SMOOTHING
            self._seen[lane.worker_id] = _Seen(lane.steps, lane.busy_s, lane.item_s)
        if busy_s > 0:
            crowd = item_s / busy_s / load
            known = self._crowds.get(name, crowd)
            self._crowds[name] = known + _SMOOTHING * (crowd - known)

    def _compare(self, members: list[Lane]) -> None:
        """Who is slow among workers of a kind; and who was not asked is forgiven a little."""
        usual_s = {lane: lane.pace.expected_s(TYPICAL) for lane in members}
        for lane in members:
            mates = [s for mate, s in usual_s.items() if mate is not lane and s is not None]
            own_s = usual_s[lane]
            behind = bool(mates) and own_s is not None and own_s > _SLOW * median(mates)
            lane.slow = behind or lane.pace.lag > _SLOW
            before = self._seen.get(lane.worker_id)
            others = [mate for mate in members if mate is not lane and mate.step_s > 0]
            if others and before is not None and before.steps == lane.steps and not lane.in_flight:
                lane.pace.fade(_FORGIVES)
                lane.fade(
                    _FORGIVES, fmean(m.step_s for m in others), fmean(m.hop_s for m in others)
                )

    def describe(self, moved: Counter[str]) -> dict[str, dict[str, Any]]:
        """By pool, as of the last look: price of a second, seconds, shares, counts so far."""
        told = {} if self._prices is None else self._prices.told
        return {
            name: {
                "workers": len(members),
                "tiers": sorted({str(tier) for lane in members for tier in lane.tiers}),
                "sessions": sum(len(lane.homes) for lane in members),
                "waiting": sum(len(lane.waiting) for lane in members),
                "price": told.get(name, 1.0),
                "queue_s": self._loads[name].queue_s,
                "step_s": self._loads[name].step_s,
                "util_frac": self._loads[name].util_frac,
                "kv_frac": max(lane.kv_frac for lane in members),
                "crowd": self._crowds.get(name, 1.0),
                "slow_workers": sum(lane.slow or lane.late > 0 for lane in members),
                "moved_sessions": moved[name],
                "skipped_proposals": self.skipped[name],
                "late_steps": self.late[name],
            }
            for name, members in self._pools.items()
        }


def _load(members: list[Lane]) -> PoolLoad:
    utils = [util for lane in members if (util := lane.report.probe.util_mean_frac) is not None]
    used = [lane for lane in members if lane.homes]
    if not used:
        return PoolLoad(fmean(utils) if utils else None, 0.0, 0.0)
    return PoolLoad(
        util_frac=fmean(utils) if utils else None,
        queue_s=fmean(lane.wait_s for lane in used),
        step_s=fmean(lane.step_s for lane in used),
        kv_frac=fmean(lane.kv_frac if _pushes_out(lane) else 0.0 for lane in used),
    )


def _pushes_out(lane: Lane) -> bool:
    """Slots are given out whole: while each session has one, none pushes another out."""
    return max(len(lane.homes), lane.report.sessions) > lane.report.slots
