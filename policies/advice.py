"""Which plan to play at which load, and what the fleet for it costs. DESIGN section 4.

Pure: from a cost model to a table of advice. It knows neither where times and rates come from
(measured by `calibrate`, or a roofline's) nor how they are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from policies.costs import CostModel, TierCost, cheapest
from policies.vocabulary import Plan, PlanKind, Tier

KINDS = (PlanKind.OFF, PlanKind.TWO_TIER, PlanKind.THREE_TIER)
ModelAt = Callable[[int], CostModel]
"""The cost model at a load: what a forward costs may depend on how many sessions share it."""
_MILLION = 1e6
_HOUR_S = 3600.0
_DEAREST = 4.0
"""Slim costs in units of full that are looked at."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of gamma and block in the search, as the controller's are."""

    max_gamma: int = 8
    max_block: int = 16


@dataclass(frozen=True, slots=True)
class Prices:
    """Per hour of one worker (all of its cards), in any currency; None where not known."""

    cheap_per_hour: float | None = None
    large_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class PlanAdvice:
    """The best shape of one kind at one load, and what it is predicted to do.

    `tokens_per_s`: of all sessions together, on one worker a pool, in lockstep.
    `full_rows_per_token`: rows that full scores per committed token. `*_busy_s`: seconds that a
    pool computes per committed token. `cheap_per_large`: cheap workers that keep up with one
    large worker where both are always busy; `sessions_per_large`: sessions in flight that it
    takes for that. `price_per_mtok`: of a million tokens in such a fleet; plain decoding needs
    no cheap worker.
    """

    plan: Plan
    token_s: float
    tokens_per_s: float
    ratio: float
    full_rows_per_token: float
    large_busy_s: float
    cheap_busy_s: float
    cheap_per_large: float
    sessions_per_large: float
    price_per_mtok: float | None


@dataclass(frozen=True, slots=True)
class LoadAdvice:
    """At `load` concurrent sessions. `best`: the kind that gives them the most tokens/s.
    `thriftiest`: the plan of any kind and shape with the lowest price of a token in a fleet
    whose pools are always busy with steps of `load` sessions; None without prices.

    `slim_pays`: three tiers beat two; None without a slim. `break_even_a2`: the agreement of
    slim and full from which on they would, at slim's cost; None: at none. `break_even_slim`:
    the cost of slim's forward over full's up to which they would, at its agreement; None: not
    even for nothing.
    """

    load: int
    best: PlanKind
    plans: tuple[PlanAdvice, ...]
    thriftiest: PlanAdvice | None
    slim_pays: bool | None
    slim_saves_rows: bool | None
    slim_cost: float | None
    break_even_a2: float | None
    break_even_slim: float | None

    def of(self, kind: PlanKind) -> PlanAdvice | None:
        """That kind's, if its tiers are there."""
        return next((found for found in self.plans if found.plan.kind is kind), None)


def advise(
    model_at: ModelAt, loads: Iterable[int], bounds: Bounds, prices: Prices
) -> tuple[LoadAdvice, ...]:
    """For each load the kinds that the model has times for."""
    return tuple(_at_load(model_at(load), load, bounds, prices) for load in loads)


def _at_load(model: CostModel, load: int, bounds: Bounds, prices: Prices) -> LoadAdvice:
    plain_s = model.cost(_shape(model, PlanKind.OFF, load, bounds), load)
    plans = tuple(
        plan_advice(model, _shape(model, kind, load, bounds), load, plain_s, prices)
        for kind in KINDS
        if model.knows(kind)
    )
    best = min(plans, key=lambda found: found.token_s).plan.kind
    by_kind = {found.plan.kind: found for found in plans}
    thriftiest = _thriftiest(model, load, plain_s, bounds, prices)
    two, three = by_kind.get(PlanKind.TWO_TIER), by_kind.get(PlanKind.THREE_TIER)
    if two is None or three is None:
        return LoadAdvice(load, best, plans, thriftiest, None, None, None, None, None)
    return LoadAdvice(
        load=load,
        best=best,
        plans=plans,
        thriftiest=thriftiest,
        slim_pays=three.token_s < two.token_s,
        slim_saves_rows=three.full_rows_per_token < two.full_rows_per_token,
        slim_cost=slim_cost(model, load),
        break_even_a2=break_even_a2(model, load, bounds),
        break_even_slim=break_even_slim(model, load, bounds),
    )


def plan_advice(
    model: CostModel, plan: Plan, load: int, plain_s: float, prices: Prices
) -> PlanAdvice:
    """What `plan` does at `load`, where plain decoding takes `plain_s` seconds a token."""
    token_s = model.cost(plan, load)
    large_s, cheap_s = busy_s(model, plan, load)
    return PlanAdvice(
        plan=plan,
        token_s=token_s,
        tokens_per_s=load / token_s,
        ratio=plain_s / token_s,
        full_rows_per_token=full_rows(model, plan, load),
        large_busy_s=large_s,
        cheap_busy_s=cheap_s,
        cheap_per_large=cheap_s / large_s,
        sessions_per_large=token_s / large_s,
        price_per_mtok=_price(large_s, cheap_s, prices),
    )


def _thriftiest(
    model: CostModel, load: int, plain_s: float, bounds: Bounds, prices: Prices
) -> PlanAdvice | None:
    """Over all shapes: what is quick for sessions that wait is not what is cheap."""
    gammas, lengths = range(1, bounds.max_gamma + 1), range(2, bounds.max_block + 1)
    shapes = [Plan(PlanKind.OFF)]
    if model.knows(PlanKind.TWO_TIER):
        shapes += [Plan(PlanKind.TWO_TIER, gamma, gamma) for gamma in gammas]
    if model.knows(PlanKind.THREE_TIER):
        shapes += [Plan(PlanKind.THREE_TIER, gamma, n) for gamma in gammas for n in lengths]
    priced = [
        (found.price_per_mtok, found)
        for plan in shapes
        if (found := plan_advice(model, plan, load, plain_s, prices)).price_per_mtok is not None
    ]
    return min(priced, key=lambda pair: pair[0])[1] if priced else None


def busy_s(model: CostModel, plan: Plan, load: int) -> tuple[float, float]:
    """Seconds that large and cheap pool compute per committed token, hops not counted.

    Prompt lookup without slim costs the cheap pool nothing: the router does it.
    """
    idle = {tier: replace(time, hop_s=0.0) for tier, time in model.times.items()}
    quick = replace(model, times=idle)
    tokens = load * model.tokens(plan, load)
    cheap_s = quick.propose_s(plan, load)
    large_s = quick.cost(plan, load) * model.tokens(plan, load) - cheap_s
    if plan.kind is PlanKind.TWO_TIER and model.times[Tier.DRAFT].forward_s(load) == 0:
        cheap_s = 0.0
    return large_s / tokens, cheap_s / tokens


def full_rows(model: CostModel, plan: Plan, load: int) -> float:
    """Rows scored by full per committed token, those of plain rounds between included."""
    if plan.kind is PlanKind.OFF:
        return 1.0
    plain = 0.0
    if plan.kind is PlanKind.TWO_TIER and load == 1:
        # A session that is alone decodes a burst where its draft has nothing to propose.
        plain = (1 - model.rates.hit_frac) * (model.decode_tokens - 1)
    return (model.rows(plan) + plain) / model.tokens(plan, load)


def slim_cost(model: CostModel, load: int) -> float:
    """Slim's forward over full's, for one row of each session."""
    slim, full = model.times[Tier.SLIM], model.times[Tier.FULL]
    return slim.forward_s(load) / full.forward_s(load)


def break_even_a2(model: CostModel, load: int, bounds: Bounds) -> float | None:
    """The a2 from which on three tiers beat two, by E(a2, n) whatever was measured of it."""
    two = _cost(model, PlanKind.TWO_TIER, load, bounds)

    def pays(a2: float) -> bool:
        curves = replace(model.curves, slim_full=None)
        rates = replace(model.rates, slim_full=a2)
        tried = replace(model, rates=rates, curves=curves)
        return _cost(tried, PlanKind.THREE_TIER, load, bounds) < two

    if not pays(1.0):
        return None
    return _threshold(pays, 0.0, 1.0)


def break_even_slim(model: CostModel, load: int, bounds: Bounds) -> float | None:
    """The cost of slim in units of full's, up to which three tiers beat two."""
    two = _cost(model, PlanKind.TWO_TIER, load, bounds)

    def loses(cost: float) -> bool:
        return _cost(with_slim_cost(model, cost), PlanKind.THREE_TIER, load, bounds) >= two

    if loses(0.0):
        return None
    return _threshold(loses, 0.0, _DEAREST) if loses(_DEAREST) else _DEAREST


def with_slim_cost(model: CostModel, cost: float) -> CostModel:
    """The same with a slim whose forward takes `cost` times full's of as many rows."""
    full_s = model.times[Tier.FULL].forward_s
    slim = TierCost(partial(_scaled, full_s, cost), hop_s=model.times[Tier.SLIM].hop_s)
    return replace(model, times={**model.times, Tier.SLIM: slim})


def _scaled(forward_s: Callable[[float], float], factor: float, rows: float) -> float:
    return factor * forward_s(rows)


def _threshold(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The least value in [low, high] from which on `holds` is true; it is at `high`."""
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _shape(model: CostModel, kind: PlanKind, load: int, bounds: Bounds) -> Plan:
    return cheapest(model, kind, load, bounds.max_gamma, bounds.max_block)[0]


def _cost(model: CostModel, kind: PlanKind, load: int, bounds: Bounds) -> float:
    return cheapest(model, kind, load, bounds.max_gamma, bounds.max_block)[1]


def _price(large_s: float, cheap_s: float, prices: Prices) -> float | None:
    """Of a million tokens; None where a price that it needs is not known."""
    if prices.large_per_hour is None or (cheap_s > 0 and prices.cheap_per_hour is None):
        return None
    cheap = cheap_s * prices.cheap_per_hour if prices.cheap_per_hour is not None else 0.0
    return (large_s * prices.large_per_hour + cheap) / _HOUR_S * _MILLION
