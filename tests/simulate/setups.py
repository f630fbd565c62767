"""Small fleets for the laws of the simulator."""

from __future__ import annotations

from dataclasses import replace

from cluster.simulate.luck import Drawn
from cluster.simulate.setup import PoolSetup, Setup, Traffic
from policies.costs import CostModel, Rates, TierCost
from policies.vocabulary import Plan, PlanKind, Tier

RATES = Rates(0.7, 0.75, 0.9)
HOP_S = 0.001
OFF = Plan(PlanKind.OFF)
TWO = Plan(PlanKind.TWO_TIER, 3, 3)
THREE = Plan(PlanKind.THREE_TIER, 3, 8)
SECONDS = {Tier.DRAFT: 0.002, Tier.SLIM: 0.010, Tier.FULL: 0.040}


class Steady:
    """A forward of a tier takes the same whatever it carries, and a little a row."""

    def __init__(self, row_s: float = 0.0) -> None:
        self.row_s = row_s

    def forward_s(self, tier: Tier, sessions: int, rows: int, context_tokens: int) -> float:
        return SECONDS[tier] + self.row_s * rows

    def lookup_s(self) -> float:
        return 0.0


def pool(*tiers: Tier, workers=1, slots=16, capacity=1e9, row_s=0.0, price=1.0) -> PoolSetup:
    return PoolSetup(
        tiers, frozenset(tiers), Steady(row_s), workers, 1, slots, 512, capacity, price
    )


def setup(
    plan: Plan | None = OFF,
    traffic: Traffic | None = None,
    large: PoolSetup | None = None,
    cheap: PoolSetup | None = None,
    rates: Rates = RATES,
    **more,
) -> Setup:
    """One session at a time by default."""
    return Setup(
        large=large or pool(Tier.FULL),
        cheap=cheap or pool(Tier.DRAFT, Tier.SLIM),
        traffic=traffic or Traffic(20, 1.0, 40, 80, closed=1),
        luck=Drawn(rates, 16),
        hop_s=HOP_S,
        plan=plan,
        max_gamma=8,
        max_block=16,
        decode_tokens=4,
        **more,
    )


def model(rates: Rates = RATES) -> CostModel:
    """The same fleet's cost model."""
    times = {tier: TierCost(lambda rows, t=tier: SECONDS[t], hop_s=HOP_S) for tier in Tier}
    return CostModel(times, rates, 4)


def alone(fleet: Setup) -> Setup:
    """Without its cheap pool."""
    return replace(fleet, cheap=None)


def together(plan: Plan | None = OFF, traffic: Traffic | None = None, **more) -> Setup:
    """One worker of all tiers."""
    return alone(setup(plan, traffic, pool(Tier.DRAFT, Tier.SLIM, Tier.FULL), **more))
