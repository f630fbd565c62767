"""How many tokens of a block are accepted: drawn from given rates or from measured curves.

It knows no clock and no session; the generator is handed in.
"""

from __future__ import annotations

import itertools
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from policies.costs import Rates
from policies.rounds import Curve, Curves


class Odds:
    """`survival[j]`: the probability that the first j + 1 tokens of a block are all accepted."""

    def __init__(self, survival: Sequence[float]) -> None:
        assert all(0 <= p <= 1 for p in survival)
        assert all(a >= b for a, b in itertools.pairwise(survival))
        self._lost = [1 - p for p in survival]

    def kept(self, length: int, draw: float) -> int:
        """Of a block of `length` tokens; `draw` is uniform in [0, 1)."""
        return min(bisect_left(self._lost, 1 - draw), length)


def odds(rate: float, curve: Curve | None, longest: int) -> Odds:
    """Of blocks of up to `longest` tokens: by the curve where one was measured, else by `rate`
    for each token.

    A round of k tokens commits E[X_k] = 1 + the sum of survival up to k, so the differences of
    the curve are the survival. Measured at different places for each k, they may rise by
    chance: nothing survives better than what it needs to survive.
    """
    if curve is None:
        return Odds([rate ** (j + 1) for j in range(longest)])
    survival: list[float] = []
    for length in range(1, longest + 1):
        step = curve.mean(length) - curve.mean(length - 1)
        survival.append(min(max(step, 0.0), survival[-1] if survival else 1.0))
    return Odds(survival)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The trio's. `hit_frac` and `length_frac` as in Rates."""

    draft_full: Odds
    draft_slim: Odds
    slim_full: Odds
    hit_frac: float = 1.0
    length_frac: float = 1.0

    @classmethod
    def of(cls, rates: Rates, curves: Curves, max_gamma: int, max_block: int) -> Acceptance:
        """Given or measured."""
        return cls(
            odds(rates.draft_full, curves.draft_full, max_gamma),
            odds(rates.draft_slim, curves.draft_slim, max_gamma),
            odds(rates.slim_full, curves.slim_full, max_block),
            rates.hit_frac,
            rates.length_frac,
        )

    def drafted(self, asked: int, rng: random.Random) -> int:
        """Tokens that one call of the draft proposes."""
        if self.hit_frac < 1 and rng.random() >= self.hit_frac:
            return 0
        if self.length_frac >= 1:
            return asked
        exact = asked * self.length_frac
        return max(int(exact) + (rng.random() < exact % 1), 1)
