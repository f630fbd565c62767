"""What rounds commit along a text that is known: the agreement of the tiers, place by place.

Under the shared noise (DESIGN section 2) acceptance is decided by the prefix alone, and what a
tier proposes counts only while it agrees. So one teacher-forced pass along full's own answer
says how every round that begins at any place would end, for any draft length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a draft would meet if it began at each place of one answer.

    `proposed[i]`: tokens that it finds there, at most what it is ever asked for;
    `accepted[i]`: how many of these the verifier keeps, the answer's end included.
    """

    proposed: tuple[int, ...]
    accepted: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.proposed) == len(self.accepted)
        assert all(0 <= a <= p for p, a in zip(self.proposed, self.accepted, strict=True))


def outlook(agrees: Sequence[bool], longest: int) -> Outlook:
    """Of a model, which always proposes `longest` tokens: runs of agreement from each place."""
    accepted = [0] * len(agrees)
    run = 0
    for i in range(len(agrees) - 1, -1, -1):
        run = run + 1 if agrees[i] else 0
        accepted[i] = min(run, longest)
    return Outlook((longest,) * len(agrees), tuple(accepted))


@dataclass(frozen=True, slots=True)
class Round:
    """A round that begins at place `start`; `kept` of `proposed` tokens, and one more of the
    verifier's own."""

    start: int
    proposed: int
    kept: int


def rounds(seen: Outlook, length: int) -> list[Round]:
    """The rounds that the answer falls into where each asks for `length` tokens.

    Only rounds that would fit into the answer if every token were accepted: one that is cut
    short by the end would make long drafts look worse than they are.
    """
    assert length >= 1, length
    found: list[Round] = []
    start = 0
    while start + length < len(seen.proposed):
        kept = min(seen.accepted[start], length)
        found.append(Round(start, min(seen.proposed[start], length), kept))
        start += kept + 1
    return found


@dataclass(frozen=True, slots=True)
class Curve:
    """Tokens of a round, its verifier's own included, by the length asked for: E[X] and E[X^2]
    of rounds that proposed anything, at index length - 1. The last value holds beyond."""

    means: tuple[float, ...]
    squares: tuple[float, ...]

    def mean(self, length: float) -> float:
        """E[X], linear between whole lengths; 1 at 0."""
        return _at(self.means, length)

    def square(self, length: float) -> float:
        """E[X^2] likewise."""
        return _at(self.squares, length)


def _at(values: Sequence[float], length: float) -> float:
    known = (1.0, *values)
    low = min(int(length), len(known) - 1)
    high = min(low + 1, len(known) - 1)
    return known[low] + (length - low) * (known[high] - known[low]) if high > low else known[low]


@dataclass(frozen=True, slots=True)
class Curves:
    """Who judges whom; None leaves it to the rate. By gamma: `draft_full` and `draft_slim`; by
    block: `slim_full`."""

    draft_full: Curve | None = None
    draft_slim: Curve | None = None
    slim_full: Curve | None = None


def curve(answers: Iterable[Outlook], longest: int) -> Curve | None:
    """Over all rounds of all answers that proposed anything; None where there are none.

    A length for which no round fits into any answer ends the curve.
    """
    answers = list(answers)
    means: list[float] = []
    squares: list[float] = []
    for length in range(1, longest + 1):
        tokens = [r.kept + 1 for seen in answers for r in rounds(seen, length) if r.proposed]
        if not tokens:
            break
        means.append(sum(tokens) / len(tokens))
        squares.append(sum(t * t for t in tokens) / len(tokens))
    return Curve(tuple(means), tuple(squares)) if means else None


def fill(answers: Iterable[Outlook], length: int) -> tuple[float, float]:
    """Share of the rounds that proposed anything, and of `length` how much these proposed."""
    proposed = [r.proposed for seen in answers for r in rounds(seen, length)]
    hits = [count for count in proposed if count]
    if not hits:
        return (0.0, 1.0) if proposed else (1.0, 1.0)
    return len(hits) / len(proposed), sum(hits) / len(hits) / length
