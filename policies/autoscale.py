"""How many workers each pool should have: a pure step from what was seen to what is wanted.

The cheap pool follows the large one by the ratio of their work, so both grow at once instead of
the second finding out by its own queue. Up fast, down slow: down only to the most that was
wanted in a whole window. It knows no machine and no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class PoolStats:
    """One pool now. `workers` are ready. `util_frac`: share of the time that they compute;
    `fill_frac`: share of its slots that a step uses. (A worker that decodes for one session
    computes all the time: only both together say how much is left.) `waiting`: sessions that
    have no slot yet, `slots` of one worker; `queue_s`: that work waits for its step."""

    workers: int
    util_frac: float
    fill_frac: float
    slots: int
    waiting: int = 0
    queue_s: float = 0.0

    @property
    def served(self) -> float:
        """Work done, in workers that are always busy with full steps."""
        return self.workers * min(self.util_frac, 1.0) * min(self.fill_frac, 1.0)

    @property
    def work(self) -> float:
        """Work asked for, likewise."""
        return self.served + self.waiting / self.slots


@dataclass(frozen=True, slots=True)
class ScaleSettings:
    """One pool's bounds. Illegal: ValueError.

    `target_frac`: work for each worker; `max_queue_s`: above it a worker more, whatever the
    work. Up after `up_s` of wanting more, down after `down_s` of wanting less.
    """

    min_workers: int = 1
    max_workers: int = 1
    target_frac: float = 0.7
    max_queue_s: float = 1.0
    up_s: float = 5.0
    down_s: float = 120.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_workers <= self.max_workers:
            raise ValueError(
                f"min_workers must be from 0 to max_workers, not {self.min_workers} "
                f"of {self.max_workers}"
            )
        if not 0 < self.target_frac <= 1:
            raise ValueError(f"target_frac must be in (0, 1], not {self.target_frac}")
        for name in ("max_queue_s", "up_s", "down_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative: {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Coupling:
    """`max_ratio`: cheap workers to one large one at the most, with more they would idle.
    `wake_frac`: use of the large pool at which a cheap pool of none gets its first worker."""

    max_ratio: float = 4.0
    wake_frac: float = 0.5


@dataclass(frozen=True, slots=True)
class PoolScale:
    """What is wanted of one pool, and for how long something else has been.
    `peak`: the most that was wanted since it began to be less."""

    wanted: int
    above_since_s: float | None = None
    below_since_s: float | None = None
    peak: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """Both pools. `ratio`: cheap work to large work, smoothed; None while nothing was seen."""

    cheap: PoolScale
    large: PoolScale
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """The settings of both pools; `decide` is the policy."""

    cheap: ScaleSettings = field(default_factory=ScaleSettings)
    large: ScaleSettings = field(default_factory=ScaleSettings)
    coupling: Coupling = field(default_factory=Coupling)

    def decide(self, before: Scale, now_s: float, cheap: PoolStats, large: PoolStats) -> Scale:
        """The next state; `wanted` of its pools is what should be there."""
        ratio = _ratio(before.ratio, cheap, large)
        large_need = _within(_need(large, self.large), self.large)
        cheap_need = _within(self._cheap_need(cheap, large, large_need, ratio), self.cheap)
        return Scale(
            _towards(before.cheap, cheap_need, now_s, self.cheap),
            _towards(before.large, large_need, now_s, self.large),
            ratio,
        )

    def _cheap_need(
        self, cheap: PoolStats, large: PoolStats, num_large: int, ratio: float | None
    ) -> int:
        """By its own work, and where the large pool grows to `num_large`, by its share of that."""
        if not cheap.workers:
            used = large.work / max(large.workers, 1)
            return 1 if used >= self.coupling.wake_frac else 0
        # With a large pool at its own target; the cheap one is to stand at its target then.
        follows = (ratio or 0.0) * self.large.target_frac / self.cheap.target_frac * num_large
        grows = num_large > large.workers
        need = max(_need(cheap, self.cheap), math.ceil(follows - _SLACK) if grows else 0)
        return min(need, math.ceil(self.coupling.max_ratio * num_large))


_SLACK = 1e-6
_RATIO_GAIN = 0.2


def _ratio(before: float | None, cheap: PoolStats, large: PoolStats) -> float | None:
    """An idle large pool says nothing, a cheap pool of none neither."""
    if large.served <= 0 or not cheap.workers:
        return before
    seen = cheap.served / large.served
    return seen if before is None else before + _RATIO_GAIN * (seen - before)


def _need(pool: PoolStats, settings: ScaleSettings) -> int:
    """Workers at which each has its target of the work; at most twice what there is."""
    need = math.ceil(pool.work / settings.target_frac - _SLACK)
    if pool.queue_s > settings.max_queue_s:
        need = max(need, pool.workers + 1)
    return min(need, max(2 * pool.workers, 1))


def _within(need: int, settings: ScaleSettings) -> int:
    return min(max(need, settings.min_workers), settings.max_workers)


def _towards(before: PoolScale, need: int, now_s: float, settings: ScaleSettings) -> PoolScale:
    if need == before.wanted:
        return PoolScale(before.wanted)
    if need > before.wanted:
        since = now_s if before.above_since_s is None else before.above_since_s
        if now_s - since >= settings.up_s:
            return PoolScale(need)
        return replace(before, above_since_s=since, below_since_s=None, peak=0)
    since, peak = now_s, need
    if before.below_since_s is not None:
        since, peak = before.below_since_s, max(before.peak, need)
    if now_s - since >= settings.down_s:
        return PoolScale(peak)
    return replace(before, above_since_s=None, below_since_s=since, peak=peak)
