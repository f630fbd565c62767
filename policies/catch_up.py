"""Whether a tier's catching up with a session is worth its time.

A model that has not seen a session computes the whole prefix before it can propose: on a long
prompt that costs more than a short answer can win. The cost model of a round knows nothing of
it. Pure: timings in, a decision out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
        self._seen: dict[Tier, float] = {}  # least seconds a row of any call
        self._owed: dict[Tier, int] = {}
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
        self._seen[timing.tier] = min(self._seen.get(timing.tier, row_s), row_s)
        self._credit_s -= self._owed.pop(timing.tier, 0) * row_s
        if timing.rows >= _PREFILL_ROWS * timing.forwards:
            known = self._row_s.get(timing.tier, row_s)
            self._row_s[timing.tier] = known + _SMOOTHING * (row_s - known)

    def allows(self, choice: Choice, cold_rows: Mapping[Tier, int], remaining: int) -> bool:
        """`cold_rows`: rows that each tier computes before the round; `remaining`: tokens still
        to come at the most. A plan must win its time back over half of what may remain (answers
        end early); a probe that does not promise that is paid out of the credit."""
        if not any(cold_rows.values()):
            return True
        if not self._row_s:
            return sum(cold_rows.values()) <= _PREFILL_ROWS
        stall_s = self.stall_s(cold_rows)
        costs = choice.costs
        gain_s = costs.get(PlanKind.OFF, 0.0) - costs.get(choice.plan.kind, 0.0)
        if gain_s * remaining / 2 >= stall_s and choice.plan.kind in costs:
            return True
        return choice.probe and self._pays(stall_s, cold_rows)

    def _pays(self, stall_s: float, cold_rows: Mapping[Tier, int]) -> bool:
        """Whether a probe is within the credit; it is then paid."""
        new = {tier: rows for tier, rows in cold_rows.items() if rows and tier not in self._seen}
        if new and not new.keys() & self._owed.keys() and stall_s <= _MOST_CREDIT_S:
            # How long a new tier takes only its first probe tells; that is paid then.
            self._owed.update(new)
            self._credit_s -= self.stall_s({t: n for t, n in cold_rows.items() if t not in new})
            return True
        if stall_s > self._credit_s:
            self._doubt(cold_rows)
            return False
        self._credit_s -= stall_s
        return True

    def _doubt(self, tiers: Iterable[Tier]) -> None:
        """What keeps us from looking may be out of date: a worker that was busy is idle again."""
        for tier in tiers:
            if tier in self._row_s:
                least = self._seen[tier]
                self._row_s[tier] = least + (self._row_s[tier] - least) / 2

    def stall_s(self, cold_rows: Mapping[Tier, int]) -> float:
        """Seconds to compute so many rows of each tier; 0 while nothing has been seen."""
        return sum(rows * self._row_seconds(tier) for tier, rows in cold_rows.items())

    def _row_seconds(self, tier: Tier) -> float:
        """A tier that has not been seen at it may be as slow as the slowest that has, but no
        slower than it decodes."""
        slowest = max(self._row_s.values(), default=0.0)
        return self._row_s.get(tier, min(slowest, self._seen.get(tier, slowest)))
