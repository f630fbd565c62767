"""How many tokens are drafted and accepted at a place of an answer: drawn from given rates, or as
`calibrate` has seen it there.

It knows no clock and no session but by its number; the generator is handed in.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from cluster.advice.calibration import Places
from policies.costs import Rates
from policies.evidence import Rate
from policies.rounds import Outlook


class Luck(Protocol):
    """A trio's. `number`: of the request; `place`: tokens of its answer that stand before."""

    def drafted(self, number: int, place: int, asked: int) -> tuple[int, int]:
        """Tokens that one call of the draft proposes, and how many of them take no forward."""
        ...

    def kept(self, rate: Rate, number: int, place: int, length: int, rng: random.Random) -> int:
        """Tokens of a block of `length` that the judge of `rate` agrees with."""
        ...


class Drawn:
    """Each token is accepted with its rate if those before it were; a draft proposes all that it
    is asked for. Blocks are at most `longest` tokens."""

    def __init__(self, rates: Rates, longest: int) -> None:
        given = {
            Rate.DRAFT_FULL: rates.draft_full,
            Rate.DRAFT_SLIM: rates.draft_slim,
            Rate.SLIM_FULL: rates.slim_full,
        }
        assert all(0 <= value <= 1 for value in given.values()), given
        # That the first j + 1 tokens are not all accepted.
        self._lost = {
            rate: [1 - value ** (j + 1) for j in range(longest)] for rate, value in given.items()
        }

    def drafted(self, number: int, place: int, asked: int) -> tuple[int, int]:
        """See Luck."""
        return asked, 0

    def kept(self, rate: Rate, number: int, place: int, length: int, rng: random.Random) -> int:
        """See Luck."""
        return min(bisect_left(self._lost[rate], 1 - rng.random()), length)


class Replayed:
    """The measured answers again and again: nothing is drawn. What a draft is sure of and what is
    accepted go together, and runs of luck stay runs. Behind a token that full refuses, which no
    measured answer goes through, the place stands for any other."""

    def __init__(self, answers: Sequence[Places]) -> None:
        assert answers
        assert all(each.length for each in answers)
        self._answers = answers

    def drafted(self, number: int, place: int, asked: int) -> tuple[int, int]:
        """See Luck."""
        answer = self._answers[number % len(self._answers)]
        at = place % answer.length
        assert answer.drafted is not None, "a draft was not measured"
        proposed = min(answer.drafted.proposed[at], asked)
        return proposed, min(answer.found[at], proposed) if answer.found else 0

    def kept(self, rate: Rate, number: int, place: int, length: int, rng: random.Random) -> int:
        """See Luck."""
        answer = self._answers[number % len(self._answers)]
        seen = _seen(answer, rate)
        assert seen is not None, f"{rate} was not measured"
        return min(seen.accepted[place % answer.length], length)


def _seen(answer: Places, rate: Rate) -> Outlook | None:
    match rate:
        case Rate.DRAFT_FULL:
            return answer.drafted
        case Rate.DRAFT_SLIM:
            return answer.screened
        case Rate.SLIM_FULL:
            return answer.slim
