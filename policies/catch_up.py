"""Whether a tier's catching up with a session is worth its time.

A model that has not seen a session computes the whole prefix before it can propose: on a long
prompt that costs more than a short answer can win. The cost model of a round knows nothing of
it. Pure: timings in, a decision out.
"""

from __future__ import annotations

from collections.abc import Mapping

from policies.estimates import TierTiming
from policies.plan import Choice
from policies.vocabulary import PlanKind, Tier

_PREFILL_ROWS = 32
"""A forward of at least so many rows is taken for prefill."""
_SMOOTHING = 0.2
_MOST_CREDIT_S = 2.0
"""No quiet hour may be spent at once: a probe is felt by the request that it falls on."""


class CatchUp:
    """`budget`: the share of full's time that probes may cost by catching up."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._row_s: dict[Tier, float] = {}
        self._most_row_s: dict[Tier, float] = {}
        self._credit_s = 0.0

    def saw(self, timing: TierTiming) -> None:
        """What one call computed on one tier."""
        if timing.tier is Tier.FULL:
            credit_s = self._credit_s + self._budget * timing.seconds
            self._credit_s = min(credit_s, _MOST_CREDIT_S)
        if not timing.rows:
            return
        row_s = timing.seconds / timing.rows
        # No row of a prompt is dearer than one of a step that decodes.
        self._most_row_s[timing.tier] = min(self._most_row_s.get(timing.tier, row_s), row_s)
        if timing.rows >= _PREFILL_ROWS * timing.forwards:
            known = self._row_s.get(timing.tier, row_s)
            self._row_s[timing.tier] = known + _SMOOTHING * (row_s - known)

    def allows(self, choice: Choice, cold_rows: Mapping[Tier, int], remaining: int) -> bool:
        """`cold_rows`: rows that each tier computes before the round; `remaining`: tokens still
        to come at the most. A probe is paid out of the credit, a plan must win its time back
        over half of what may remain (answers end early)."""
        if not any(cold_rows.values()):
            return True
        if not self._row_s:
            return sum(cold_rows.values()) <= _PREFILL_ROWS
        stall_s = self.stall_s(cold_rows)
        if choice.probe:
            unseen = any(rows and tier not in self._most_row_s for tier, rows in cold_rows.items())
            # On credit: how long a new tier takes, only its first probe tells.
            if stall_s > self._credit_s + (_MOST_CREDIT_S if unseen else 0.0):
                return False
            self._credit_s -= stall_s
            return True
        costs = choice.costs
        gain_s = costs.get(PlanKind.OFF, 0.0) - costs.get(choice.plan.kind, 0.0)
        return gain_s * remaining / 2 >= stall_s

    def stall_s(self, cold_rows: Mapping[Tier, int]) -> float:
        """Seconds to compute so many rows of each tier; 0 while nothing has been seen."""
        return sum(rows * self._row_seconds(tier) for tier, rows in cold_rows.items())

    def _row_seconds(self, tier: Tier) -> float:
        """A tier that has not been seen at it may be as slow as the slowest that has, but no
        slower than it decodes."""
        slowest = max(self._row_s.values(), default=0.0)
        return self._row_s.get(tier, min(slowest, self._most_row_s.get(tier, slowest)))
