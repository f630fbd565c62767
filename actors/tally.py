"""A router's plain numbers for metrics: added to as replies come, told every few seconds.

It knows no metric and no process; what is told is cumulative, but for what has to be taken.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from actors.homes import Running
from policies.counting import less, together
from policies.estimates import TierTiming
from policies.evidence import Rate, Verdicts
from policies.vocabulary import Counters


class Tally:
    """By mode, the one that the request asked for.

    `costs`: what sessions have cost, as of the last `brought_up`. `blocks`: those that the full
    tier has judged, by (mode, ids in the block, ids kept). `screened`: drafted tokens that slim
    judged, by (mode, accept | regenerate | escalate). `busy_s`: seconds that workers computed,
    by (pool, tier).
    """

    def __init__(self) -> None:
        self.costs: dict[str, Counters] = {}
        self.blocks: Counter[tuple[str, int, int]] = Counter()
        self.screened: Counter[tuple[str, str]] = Counter()
        self.busy_s: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._waits_s: defaultdict[str, list[float]] = defaultdict(list)

    def heard(self, mode: str, told: Sequence[Verdicts]) -> None:
        """What one reply said of the tiers' agreement."""
        for v in told:
            if v.block:
                self.blocks[mode, v.block, v.kept] += 1
            elif v.rate is Rate.DRAFT_SLIM:
                self.screened[mode, "accept"] += v.kept
                self.screened[mode, "regenerate"] += v.judged - v.kept
                self.screened[mode, "escalate"] += v.escalated

    def computed(self, pool: str, timings: Iterable[TierTiming]) -> None:
        """What one call took on each tier."""
        for timing in timings:
            self.busy_s[pool, timing.tier] += timing.seconds

    def waited(self, mode: str, wait_s: float) -> None:
        """A session was admitted after so long in the queue."""
        self._waits_s[mode].append(wait_s)

    def brought_up(self, running: Iterable[Running]) -> Tally:
        """With what these sessions have cost since the last time."""
        for one in running:
            now = one.session.counters
            if now is not one.counted:
                mode = one.session.spec.mode
                grown = less(now, one.counted)
                self.costs[mode] = together(self.costs.get(mode, Counters()), grown)
                one.counted = now
        return self

    def take_waits_s(self) -> dict[str, list[float]]:
        """Seconds in the queue of each session admitted since the last time, by mode."""
        taken, self._waits_s = dict(self._waits_s), defaultdict(list)
        return taken
