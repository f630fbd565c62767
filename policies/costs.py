"""What a plan costs: expected seconds per committed token, as a session sees it.

DESIGN section 4, with what a step shared by several sessions adds. Pure figures in, figures
out: it knows neither where times and rates come from nor which plan is in force.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import NormalDist

from policies.rounds import Curves
from policies.vocabulary import Plan, PlanKind, Tier


def expected_tokens(accept: float, length: float) -> float:
    """E(a, k) = (1 - a^(k+1)) / (1 - a): tokens that come of a block of `length` (k) tokens,
    each accepted with probability `accept` (a) if those before it were, with the verifier's
    own token behind them."""
    if accept > 1 - 1e-9:
        return length + 1
    return (1 - accept ** (length + 1)) / (1 - accept)


@dataclass(frozen=True, slots=True)
class TierCost:
    """A tier's times. `forward_s`: seconds of one forward of so many rows. `call_s`: seconds
    of proposing without a forward (prompt lookup). `hop_s`: seconds of a call's way to its
    worker and back, waiting included. `spared_frac`: share of the draft's calls that need no
    forward, where prompt lookup goes before a model. `crowd`: sessions that share its worker,
    over those that share a worker of full. `price` of a second of it, in a session's own
    seconds: above 1 where others wait for it (`policies.pressure`)."""

    forward_s: Callable[[float], float]
    call_s: float = 0.0
    hop_s: float = 0.0
    spared_frac: float = 0.0
    crowd: float = 1.0
    price: float = 1.0

    def priced_s(self, sessions: float, rows: float = 1.0) -> float:
        """A forward of `rows` rows of each of `sessions` sessions of a worker of full."""
        return self.price * self.forward_s(self.crowd * sessions * rows)


@dataclass(frozen=True, slots=True)
class Rates:
    """Acceptance per token: a0 of `draft_full`, a1 of `draft_slim`, a2 of `slim_full`.

    `hit_frac`: share of the draft's calls that propose anything; `length_frac`: how much of
    what it was asked for it then proposes. A model's draft has 1 and 1, prompt lookup less.
    """

    draft_full: float
    draft_slim: float
    slim_full: float
    hit_frac: float = 1.0
    length_frac: float = 1.0


@dataclass(frozen=True, slots=True)
class CostModel:
    """Costs under `rates` and `times`; a plan needs the times of its tiers and of full.

    `decode_tokens`: tokens of one call of plain decoding. `whole_passes`: a block is made by
    whole passes of slim, the last of them cut short, and sessions that share a call wait for
    the slowest of them. Without it T3 is DESIGN's n c1, which presumes neither. `curves`:
    measured tokens of a round, where they are known; they stand before E(a, k).
    `prefill_per_s`: rows of prompts that a worker of full computes in each second of its
    computing; a session's steps have those of the others on board.
    """

    times: Mapping[Tier, TierCost]
    rates: Rates
    decode_tokens: int = 1
    whole_passes: bool = True
    curves: Curves = field(default_factory=Curves)
    prefill_per_s: float = 0.0

    def knows(self, kind: PlanKind) -> bool:
        """Whether there are times for all tiers of `kind`, full's among them."""
        return self.times.keys() >= {Tier.FULL, *kind.tiers}

    def cost(self, plan: Plan, load: int) -> float:
        """Expected seconds per committed token where `load` sessions play `plan` together, at
        the prices of its tiers."""
        return (self.propose_s(plan, load) + self._full_s(plan, load)) / self.tokens(plan, load)

    def tokens(self, plan: Plan, load: int) -> float:
        """Tokens that a round is expected to commit."""
        rates, curves = self.rates, self.curves
        match plan.kind:
            case PlanKind.OFF:
                return self.decode_tokens
            case PlanKind.TWO_TIER:
                if curves.draft_full is not None:
                    drafted = curves.draft_full.mean(plan.gamma)
                else:
                    drafted = expected_tokens(rates.draft_full, plan.gamma * rates.length_frac)
                return rates.hit_frac * drafted + (1 - rates.hit_frac) * self._burst(load)
            case _:
                if curves.slim_full is not None:
                    return curves.slim_full.mean(plan.block)
                return expected_tokens(rates.slim_full, plan.block)

    def rows(self, plan: Plan) -> float:
        """Rows that a session has in one forward of full."""
        rates = self.rates
        fill = rates.hit_frac * rates.length_frac if plan.kind is PlanKind.TWO_TIER else 1.0
        return 1 + plan.block_len * fill

    def propose_s(self, plan: Plan, load: int) -> float:
        """Seconds until the block of a round is there, the hop included."""
        if plan.kind is PlanKind.OFF:
            return 0.0
        draft = self.times[Tier.DRAFT]
        # A model that is not sure ends its proposal early.
        drafted = max(plan.gamma * self.rates.length_frac, 1.0)
        model_s = drafted * draft.priced_s(load)
        draft_s = (1 - draft.spared_frac) * model_s + draft.call_s
        if plan.kind is PlanKind.TWO_TIER:
            return draft_s + draft.hop_s
        slim = self.times[Tier.SLIM]
        rows = 1 + plan.gamma * self.rates.hit_frac * self.rates.length_frac
        passes, uncut = self._passes(plan, max(round(load * slim.crowd), 1))
        inner_s = uncut * draft_s + passes * slim.priced_s(load, rows)
        return inner_s + max(draft.hop_s, slim.hop_s)

    def _full_s(self, plan: Plan, load: int) -> float:
        full = self.times[Tier.FULL]
        if plan.kind is PlanKind.OFF:
            return full.price * self.full_step_s(load, load, self.decode_tokens) + full.hop_s
        if plan.kind is PlanKind.TWO_TIER and load == 1:
            hit = self.rates.hit_frac
            judged = full.priced_s(1, 1 + plan.gamma * self.rates.length_frac)
            return hit * judged + (1 - hit) * self._burst(load) * full.priced_s(1) + full.hop_s
        return full.price * self.full_step_s(load, load * self.rows(plan)) + full.hop_s

    def full_step_s(self, load: int, rows: float, burst: int = 1) -> float:
        """Seconds of a step of full in which `load` sessions have `rows` rows together, one after
        another `burst` times, and the prompts that have come meanwhile are on board.

        The longer a step, the more of them: a fixed point, found as that of a line through two
        iterations (Aitken). They all go with the first forward.
        """
        forward_s = self.times[Tier.FULL].forward_s
        bare_s = forward_s(rows)
        rate = self.prefill_per_s * (1 - 1 / load)
        behind_s = (burst - 1) * bare_s
        first_s = behind_s + bare_s
        if rate <= 0:
            return first_s
        second_s = behind_s + forward_s(rows + rate * first_s)
        third_s = behind_s + forward_s(rows + rate * second_s)
        step_s, more_s = second_s - first_s, third_s - second_s
        ratio = min(max(more_s / step_s, 0.0), _MOST_PREFILL) if step_s > 0 else 0.0
        return third_s + more_s * ratio / (1 - ratio)

    def _burst(self, load: int) -> int:
        """Tokens of a round in which the draft proposed nothing: it decodes plainly, and in
        bursts only where no other session shares the step."""
        return self.decode_tokens if load == 1 else 1

    def _passes(self, plan: Plan, load: int) -> tuple[float, float]:
        """Slim's passes until the block is full, and the same less what the last draft is
        spared because it has less room.

        One pass gives X tokens, P(X > m) = a1^m up to the draft's length. By Wald's identity
        a sum of X passes n after (n + E[overshoot]) / E[X] of them; Lorden's estimate of the
        overshoot is (E[X^2] / E[X] - 1) / 2. The slowest of `load` sessions: the normal
        approximation of the largest of so many, by Blom's quantile.
        """
        block, hit = plan.block, self.rates.hit_frac
        mean, square = (hit * moment + 1 - hit for moment in self._screened(plan.gamma))
        if not self.whole_passes:
            return block / mean, block / mean
        spared = max(square / mean - 1, 0.0) / 2 / mean
        passes = max(1.0, block / mean + spared)
        spread = (block * max(square - mean * mean, 0.0) / mean**3) ** 0.5
        slowest = min(passes + _blom(load) * spread, float(block))
        return slowest, max(slowest - spared, 1 / plan.gamma)

    def _screened(self, gamma: int) -> tuple[float, float]:
        """E[X] and E[X^2] of the tokens of one pass of slim over a draft."""
        if (known := self.curves.draft_slim) is not None:
            return known.mean(gamma), known.square(gamma)
        accept, length = self.rates.draft_slim, gamma * self.rates.length_frac
        return expected_tokens(accept, length), _second_moment(accept, length)


def _second_moment(accept: float, length: float) -> float:
    """E[X^2] where P(X > m) = a^m for m up to the length k: the sum of (2 m + 1) a^m."""
    if accept > 1 - 1e-3:
        return (length + 1) ** 2
    last = accept ** (length + 1)
    rest = (2 * length + 3 - (2 * length + 1) * accept) * last
    return (1 + accept - rest) / (1 - accept) ** 2


@cache
def _blom(count: int) -> float:
    """Expected largest of `count` standard normal values, nearly; 0 for one."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0


def cheapest(
    model: CostModel, kind: PlanKind, load: int, max_gamma: int, max_block: int
) -> tuple[Plan, float]:
    """The best shape of an exact kind and its cost; of equals the smaller.

    Under THREE_TIER gamma and block are searched in turn: gamma decides what a token of the
    block costs, nearly whatever its length.
    """
    if kind is PlanKind.OFF:
        return _least(model, [_shape(kind, 4, 8)], load)
    gammas = range(1, max_gamma + 1)
    if kind is PlanKind.TWO_TIER:
        return _least(model, [_shape(kind, gamma, gamma) for gamma in gammas], load)
    lengths = [n for n in _BLOCKS if n < max_block] + [max_block]
    middle = lengths[len(lengths) // 2]
    plan, _ = _least(model, [_shape(kind, gamma, middle) for gamma in gammas], load)
    plan, _ = _least(model, [_shape(kind, plan.gamma, n) for n in lengths], load)
    near = [_shape(kind, g, plan.block) for g in gammas if abs(g - plan.gamma) <= 1]
    return _least(model, near, load)


_MOST_PREFILL = 0.9
"""Of full's time: beyond it nothing is left to decode with."""
_BLOCKS = (2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32)


@cache
def _shape(kind: PlanKind, gamma: int, block: int) -> Plan:
    return Plan(kind, gamma, block)


def _least(model: CostModel, candidates: Sequence[Plan], load: int) -> tuple[Plan, float]:
    costs = [model.cost(plan, load) for plan in candidates]
    least = min(range(len(costs)), key=costs.__getitem__)
    return candidates[least], costs[least]


def probe_cost(model: CostModel, current: Plan, plan: Plan, load: int) -> float:
    """What one session's round under `plan` costs all of them while the others play `current`,
    in rounds of one session.

    The others wait for full's additional rows, and for a slower block where the same call
    makes theirs.
    """
    full = model.times[Tier.FULL]
    rows = load * model.rows(current)
    mixed_s = full.priced_s(rows + max(model.rows(plan) - model.rows(current), 0.0))
    wait_s = max(mixed_s - full.priced_s(rows), 0.0)
    if current.kind is not PlanKind.OFF:
        wait_s += max(model.propose_s(plan, 1) - model.propose_s(current, load), 0.0)
    cost, tokens = model.cost(current, load), model.tokens(current, load)
    own = (model.cost(plan, load) / cost - 1) * model.tokens(plan, load) / tokens
    return max(own, 0.0) + (load - 1) * wait_s / (cost * tokens)
