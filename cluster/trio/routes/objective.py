"""What a route search minimises, from a candidate's likeness to full and measured step times.

Pure. A candidate is judged untrained: how like full it becomes by healing is not known when it
is searched. `healing` presumes that training closes the same share of every candidate's gap,
which shifts the choice of size and keeps the order of candidates of one size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cluster.trio.likeness import Likeness
from policies.costs import CostModel, Rates, TierCost, cheapest
from policies.vocabulary import PlanKind, Tier

Objective = Literal["cost", "kl", "agreement"]
OBJECTIVES: tuple[Objective, ...] = ("cost", "kl", "agreement")
MAX_GAMMA, MAX_BLOCK = 16, 32
_FEW, _MANY = 1, 8


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds of one forward of 1 and of 8 rows: of the whole model, and of the part that every
    slim has (embedding, norm, head)."""

    full_1_s: float
    full_8_s: float
    head_1_s: float
    head_8_s: float

    def forward_s(self, share: float) -> Callable[[float], float]:
        """Rows -> seconds, of a model that keeps this share of the layers' weights; a straight
        line through both measured sizes."""
        few = self.head_1_s + share * (self.full_1_s - self.head_1_s)
        many = self.head_8_s + share * (self.full_8_s - self.head_8_s)
        slope = max(many - few, 0.0) / (_MANY - _FEW)
        return lambda rows: few + slope * (rows - _FEW)


@dataclass(frozen=True, slots=True)
class Steps:
    """Of the model as it is, and with int8 linears where that was measured."""

    dense: StepTimes
    int8: StepTimes | None = None

    def of(self, int8: bool) -> StepTimes:
        """What a slim with such weights costs."""
        if not int8:
            return self.dense
        assert self.int8 is not None
        return self.int8


@dataclass(frozen=True, slots=True)
class Assumed:
    """What a search cannot see. a0 = M(draft, full); a1 = M(draft, slim); `draft_cost`: a
    draft's step over full's; `hop_s`: full's way there and back; `healing`: see the module."""

    a0: float = 0.6
    a1: float = 0.65
    draft_cost: float = 0.1
    hop_s: float = 0.0
    healing: float = 0.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """`slim_cost`: a slim step over full's; the others are seconds per committed token."""

    slim_cost: float
    off_s: float
    two_tier_s: float
    three_tier_s: float


def predict(
    steps: Steps, assumed: Assumed, share: float, coupling: float, int8: bool = False
) -> Prediction:
    """By DESIGN section 4 for one session: the best shape of each plan, with a2 = `coupling`.
    `int8`: of a slim with such weights; full is never."""
    full, slim = steps.dense.forward_s(1.0), steps.of(int8).forward_s(share)
    draft_s = assumed.draft_cost * full(1)
    a2 = coupling + assumed.healing * (1 - coupling)
    model = CostModel(
        {
            Tier.FULL: TierCost(full, hop_s=assumed.hop_s),
            Tier.SLIM: TierCost(slim),
            Tier.DRAFT: TierCost(lambda rows: draft_s),
        },
        Rates(assumed.a0, assumed.a1, a2),
    )
    off, two, three = (
        cheapest(model, kind, 1, MAX_GAMMA, MAX_BLOCK)[1]
        for kind in (PlanKind.OFF, PlanKind.TWO_TIER, PlanKind.THREE_TIER)
    )
    return Prediction(slim(1) / full(1), off, two, three)


def value(objective: Objective, likeness: Likeness, predicted: Prediction) -> float:
    """Less is better. `cost` is that of three tiers, even where two are cheaper: the best plan's
    would be the same number for every slim that does not pay yet, and show no way down."""
    match objective:
        case "cost":
            return predicted.three_tier_s
        case "kl":
            return likeness.one_sided
        case "agreement":
            return -likeness.agreement
