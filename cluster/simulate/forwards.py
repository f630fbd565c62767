"""What the forwards of one simulated step take, tier by tier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.simulate.held import Held
from cluster.simulate.times import Times
from policies.estimates import TierTiming
from policies.vocabulary import Tier


@dataclass(slots=True)
class _Spent:
    seconds: float = 0.0
    forwards: int = 0
    rows: int = 0


class Forwards:
    """Of one step. `models`: the tiers that run a model (prompt lookup runs none)."""

    def __init__(self, models: frozenset[Tier], times: Times) -> None:
        self.models, self._times = models, times
        self._spent: dict[Tier, _Spent] = {}

    @property
    def busy_s(self) -> float:
        """All of it."""
        return sum(each.seconds for each in self._spent.values())

    def run(self, tier: Tier, rows: int, held: Sequence[Held]) -> None:
        """One forward of so many rows of these sessions."""
        context = sum([each.length for each in held])
        each = self._spent.setdefault(tier, _Spent())
        each.seconds += self._times.forward_s(tier, len(held), rows, context)
        each.forwards += 1
        each.rows += rows

    def look_up(self, count: int) -> None:
        """So many prompt lookups, where there are any."""
        if (seconds := self._times.lookup_s()) > 0:
            self._spent.setdefault(Tier.DRAFT, _Spent()).seconds += seconds * count

    def timings(self) -> tuple[TierTiming, ...]:
        """As a worker tells them."""
        return tuple(
            [TierTiming(tier, s.seconds, s.forwards, s.rows) for tier, s in self._spent.items()]
        )
