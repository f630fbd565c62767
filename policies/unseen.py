"""The committed tokens that the full tier has not looked at yet, of one lossy session.

They are the tail of what was committed. Some are drawn for the audit when they are committed;
whoever looks at them first, a background audit or an escalation on its way, makes the drawn
ones rows of the random sample and the others rows that are counted apart: what leads to an
escalation is no random sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policies.audit import AuditRow
from policies.noise import noise_keys
from policies.work import Audited

_SALT = 0x61756469


@dataclass(frozen=True, slots=True)
class UnseenToken:
    """`logprob`: slim's, natural logarithm. `level`: the audit's when it was committed.
    `drawn`: whether it is in the random sample."""

    logprob: float
    level: int
    drawn: bool

    def row(self, seen: Audited) -> AuditRow:
        """What the full tier's look makes of it."""
        overshoot = self.logprob - seen.logprob
        return AuditRow(not seen.agrees, overshoot, escalated=not self.drawn, level=self.level)


class Unseen:
    """The unseen tail, oldest first. `share`: the probability that a span, the tokens of one
    commit, is drawn; whether it is depends on (seed, choice, position) alone. Above level 0
    every span is: a tightened gate lets little pass, and is under suspicion."""

    def __init__(self, share: float, seed: int, choice: int) -> None:
        self._share = share
        self._seed = seed ^ _SALT
        self._choice = choice
        self._tokens: list[UnseenToken] = []

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def drawn(self) -> bool:
        """Whether one of them is to be audited."""
        return any(token.drawn for token in self._tokens)

    def add(self, position: int, logprobs: Sequence[float], level: int) -> None:
        """A span that was committed from `position` on."""
        if not logprobs:
            return
        word = noise_keys(self._seed, self._choice, position)[0]
        drawn = level > 0 or word < self._share * 2**32
        self._tokens += [UnseenToken(logprob, level, drawn) for logprob in logprobs]

    def put_back(self, tokens: Sequence[UnseenToken]) -> None:
        """What was taken last, unseen after all."""
        self._tokens[:0] = tokens

    def take(self, count: int) -> list[UnseenToken]:
        """The oldest `count`, which are then somebody else's."""
        taken, self._tokens = self._tokens[:count], self._tokens[count:]
        return taken


def rows_of(tokens: Sequence[UnseenToken], audited: Sequence[Audited]) -> tuple[AuditRow, ...]:
    """The rows of the last tokens; there may be fewer looks than tokens."""
    if not audited:
        return ()
    looked = tokens[len(tokens) - len(audited) :]
    return tuple(token.row(seen) for token, seen in zip(looked, audited, strict=True))
