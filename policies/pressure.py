"""How busy pools make the seconds of their tiers dear, so that the cheapest plan avoids them.

Where others wait, a second of computing is not only the session's own: they wait for it too. So
a tier's seconds get a price, and the controller's one minimisation does the rest. A hot cheap
pool: shorter drafts, no slim, plain decoding. A hot large pool: longer screened blocks. Pure:
the time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from policies.costs import CostModel
from policies.vocabulary import Plan, PlanKind, Tier

_UNDER_WAY = 0.5
"""Of a step, what is left of it on average when work comes."""
_CALM = 1.05
"""A price below this is told as none."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """On a tier's workers. `price`: of a second of theirs; `crowd`: sessions of one of them,
    over those of a worker of full (see TierCost)."""

    price: float = 1.0
    crowd: float = 1.0


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """Means over a pool's workers. `util_frac`: share of the time that they compute, None where
    nobody measures it. `queue_s`: seconds that work waits before its step begins, which takes
    `step_s`. `kv_frac`: share of the room for keys and values that is taken."""

    util_frac: float | None
    queue_s: float
    step_s: float
    kv_frac: float = 0.0


@dataclass(frozen=True, slots=True)
class PressureSettings:
    """`kv_high`: above this use of keys and values sessions soon push each other out; a full
    pool costs `kv_weight` times more. A price rises with the time constant `rise_s` and falls
    with `fall_s`; it is told when it has moved by `deadband`. Each relapse within `memory_s`
    doubles `fall_s` and `memory_s`, at most `max_doublings` times."""

    kv_high: float = 0.85
    kv_weight: float = 3.0
    max_price: float = 16.0
    rise_s: float = 2.0
    fall_s: float = 20.0
    deadband: float = 0.15
    memory_s: float = 600.0
    max_doublings: int = 5


def price_of(load: PoolLoad, settings: PressureSettings) -> float:
    """What a second of the pool costs those who wait for it, its own second included; 1 or more.

    Waiting over computing is the number that waits for each that is served (Little), so each
    second of a step is waited for by so many more. An idle pool's queue is chance: it counts for
    the share of the time that the pool computes; unknown is taken for busy.
    """
    busy = 1.0 if load.util_frac is None else load.util_frac
    waiting = load.queue_s / load.step_s if load.step_s > 0 else 0.0
    # Who comes on his own finds a step under way and waits for half of it: no crowd does that.
    waiting = max(waiting - _UNDER_WAY * busy, 0.0)
    crowded = max(load.kv_frac - settings.kv_high, 0.0) / (1 - settings.kv_high)
    price = (1 + busy * waiting) * (1 + settings.kv_weight * min(crowded, 1.0))
    return min(price, settings.max_price)


class Price:
    """One pool's price over time: quick to rise, slow to fall, slower after each relapse.

    What a high price drives away leaves the pool idle, and a price that followed at once would
    call it back: a plan is all sessions' at once. So each return that heats the pool again makes
    the next attempt later; the number of changes grows as the logarithm of the time.
    """

    def __init__(self, settings: PressureSettings) -> None:
        self._settings = settings
        self._value = 1.0
        self._told = 1.0
        self._at_s: float | None = None
        self._rose_s = -math.inf
        self._has_fallen = False
        self._doublings = 0

    @property
    def told(self) -> float:
        """The price that plans are made with."""
        return self._told

    def follow(self, now_s: float, target: float) -> float:
        """Go towards `target`, `price_of` at `now_s`; the price told from now on."""
        settings = self._settings
        passed_s = 0.0 if self._at_s is None else max(now_s - self._at_s, 0.0)
        self._at_s = now_s
        rises = target > self._value
        constant_s = settings.rise_s if rises else settings.fall_s * 2**self._doublings
        self._value += (target - self._value) * (1 - math.exp(-passed_s / constant_s))
        band = 1 + settings.deadband
        if self._value > self._told * band:
            self._rise(now_s)
        elif self._told > 1 and self._value < max(self._told / band, _CALM):
            self._has_fallen = True
            self._told = self._value if self._value >= _CALM else 1.0
        return self._told

    def _rise(self, now_s: float) -> None:
        if self._has_fallen:
            memory_s = self._settings.memory_s * 2**self._doublings
            relapsed = now_s - self._rose_s < memory_s
            change = 1 if relapsed else -1
            self._doublings = min(max(self._doublings + change, 0), self._settings.max_doublings)
        self._has_fallen = False
        self._rose_s = now_s
        self._told = self._value


def pressed(model: CostModel, pressure: Mapping[Tier, Pressure]) -> CostModel:
    """The same model under pressure; tiers left out are under none."""
    times = {
        tier: replace(cost, price=pressure[tier].price, crowd=pressure[tier].crowd)
        if tier in pressure
        else cost
        for tier, cost in model.times.items()
    }
    return replace(model, times=times)


def unhurried(model: CostModel, plan: Plan, load: int) -> float:
    """Seconds that a session's block may wait for its worker before plain decoding would have
    been quicker, at full's price and nobody else's; may be negative.

    A session that goes plain where the queue is longer keeps the queue about there, and the
    pool at work: the load is shared without all sessions changing their plan at once (Naor,
    "The regulation of queue size by levying tolls", Econometrica 37(1), 1969).
    """
    if plan.kind is PlanKind.OFF:
        return math.inf
    times = {
        tier: cost if tier is Tier.FULL else replace(cost, price=1.0)
        for tier, cost in model.times.items()
    }
    own = replace(model, times=times)
    gain_s = own.cost(Plan(PlanKind.OFF), load) - own.cost(plan, load)
    # Plain decoding goes from step to step; a block that others do not wait for comes between.
    between_s = _UNDER_WAY * own.full_step_s(load, load) if load > 1 else 0.0
    return gain_s * own.tokens(plan, load) - between_s
