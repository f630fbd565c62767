"""All that the controller has seen, per tier and per rate, and the cost model it makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from policies.costs import CostModel, Rates, TierCost
from policies.estimates import Acceptance, ForwardTime, Mean, TierTiming
from policies.vocabulary import PlanKind, Tier


class Rate(StrEnum):
    """Who judged whom: a0 (TWO_TIER), a1 and a2 (THREE_TIER) of DESIGN section 4."""

    DRAFT_FULL = "a0"
    DRAFT_SLIM = "a1"
    SLIM_FULL = "a2"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One round of one session. `kept` of the `judged` tokens were accepted (one more was
    judged than kept where one was rejected). The draft was `asked` for so many tokens and
    `proposed` so many; 0 and 0 where no draft took part. `block`: ids that were put before the
    full tier, 0 where another judged; `escalated`: drafted tokens that slim's gate left to it.
    Of a lossy round (not `exact`) acceptance is not equality: the controller does not count it.
    """

    rate: Rate
    judged: int
    kept: int
    asked: int
    proposed: int
    block: int = 0
    escalated: int = 0
    exact: bool = True


RATES_OF: dict[PlanKind, tuple[Rate, ...]] = {
    PlanKind.OFF: (),
    PlanKind.TWO_TIER: (Rate.DRAFT_FULL,),
    PlanKind.THREE_TIER: (Rate.DRAFT_SLIM, Rate.SLIM_FULL),
}
"""The rates that a kind's cost depends on. The controller plays no other kinds."""

_PRIOR_RATE = 0.6
_PRIOR_TOKENS = 4.0
_LEAST_S = 1e-6
"""No call is taken to be faster: a clock may stand still, a cost of nothing has no ratio."""
_HOP_WINDOW = 16.0
_KNOWN_CALLS = 8.0
_FILL_WINDOW = 64.0
_FILL_PRIOR_CALLS = 4.0


@dataclass(frozen=True, slots=True)
class Windows:
    """How much of the past counts: `calls` for times, `tokens` for rates. What is not seen any
    more counts half after `stale_rounds`."""

    calls: float
    tokens: float
    stale_rounds: float


class Evidence:
    """Estimates of one router. `count`: observations taken in so far."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._forwards = {tier: ForwardTime(windows.calls) for tier in Tier}
        self._calls = {tier: Mean(0.0, windows.calls) for tier in Tier}
        self._spared = Mean(0.0, windows.calls)
        self._hops = {tier: Mean(0.0, _HOP_WINDOW) for tier in Tier}
        self._rates = {
            rate: Acceptance(_PRIOR_RATE, _PRIOR_TOKENS, windows.tokens) for rate in Rate
        }
        self._hit = Mean(1.0, _FILL_WINDOW, _FILL_PRIOR_CALLS)
        self._length = Mean(1.0, _FILL_WINDOW, _FILL_PRIOR_CALLS)
        self._misses = 0.0
        self._prefilled = Mean(0.0, windows.calls)
        self._computed_s = Mean(0.0, windows.calls)
        self.count = 0

    def saw_step(self, timing: TierTiming, max_rows: float, prompt_rows: int = 0) -> None:
        """Take in a call's share of one tier, of which `prompt_rows` rows were prompts'; a
        prefill, more than `max_rows` rows a forward, says nothing of a decoding step."""
        seconds = max(timing.seconds, _LEAST_S)
        if timing.tier is Tier.FULL:
            self._prefilled.add(float(prompt_rows))
            self._computed_s.add(seconds)
            # They go with the first forward: the mean of one long and some short ones is the
            # time of no number of rows.
            known = self._forwards[Tier.FULL].calls >= _KNOWN_CALLS
            if prompt_rows and timing.forwards > 1 and known:
                return
        if timing.tier is Tier.DRAFT:
            self._spared.add(float(timing.forwards == 0))
        if timing.forwards == 0:
            self._calls[timing.tier].add(seconds)
        elif 0 < timing.rows <= max_rows * timing.forwards:
            rows = timing.rows / timing.forwards
            self._forwards[timing.tier].add(rows, seconds / timing.forwards)
        else:
            return
        self.count += 1

    def saw_hop(self, tier: Tier, seconds: float) -> None:
        """Take in a call's way to the worker of `tier` and back."""
        self._hops[tier].add(seconds)
        self.count += 1

    def saw_verdicts(self, verdicts: Verdicts) -> None:
        """Take in one session's round."""
        rate, judged, kept = verdicts.rate, verdicts.judged, verdicts.kept
        asked, proposed = verdicts.asked, verdicts.proposed
        assert 0 <= kept <= judged, (kept, judged)
        assert 0 <= proposed <= max(asked, 0), (proposed, asked)
        if judged:
            self._rates[rate].add(judged, kept)
        if asked and rate is Rate.DRAFT_FULL:
            self._hit.add(float(proposed > 0))
            self._misses += proposed == 0
            if proposed:
                self._length.add(proposed / asked)
        elif asked and rate is Rate.DRAFT_SLIM:
            # Several drafts in one: how many of them were empty can only be concluded.
            self._hit.add(min(proposed / asked / self._length.value, 1.0))
        self.count += 1

    def age(self, rounds: int) -> None:
        """So many rounds have passed."""
        factor = 0.5 ** (rounds / self._windows.stale_rounds)
        for each in (self._forwards, self._calls, self._hops, self._rates):
            for estimate in each.values():
                estimate.age(factor)
        self._misses *= factor
        self._spared.age(factor)
        self._hit.age(factor)
        self._length.age(factor)

    def tokens(self, kind: PlanKind) -> float:
        """Judged tokens that the least known of its rates rests on; a draft that proposed
        nothing tells as much as one token."""
        known = (self._rates[rate].tokens for rate in RATES_OF[kind])
        return min(known, default=math.inf) + self._misses * (kind is PlanKind.TWO_TIER)

    def model(self, decode_tokens: int) -> CostModel:
        """The cost model as of now, with the tiers whose times are known."""
        times: dict[Tier, TierCost] = {}
        for tier, forward in self._forwards.items():
            hop_s = self._hops[tier].value
            if forward.calls > 0:
                spared = self._spared.value if tier is Tier.DRAFT else 0.0
                call_s = spared * self._calls[tier].value
                times[tier] = TierCost(forward.fit(), call_s, hop_s, spared)
            elif self._calls[tier].weight > 0:
                times[tier] = TierCost(_no_forward, self._calls[tier].value, hop_s)
        rates = Rates(
            draft_full=self._rates[Rate.DRAFT_FULL].value,
            draft_slim=self._rates[Rate.DRAFT_SLIM].value,
            slim_full=self._rates[Rate.SLIM_FULL].value,
            hit_frac=self._hit.value,
            length_frac=self._length.value,
        )
        prefill_per_s = self._prefilled.value / max(self._computed_s.value, _LEAST_S)
        return CostModel(times, rates, decode_tokens, prefill_per_s=prefill_per_s)


def _no_forward(rows: float) -> float:
    return 0.0
