"""What one request gave. The record that targets fill and statistics read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from infra.bench.schedule import Question, Turn


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer, or the `error` in its place.

    `chunk_s` are the arrival times of the pieces of text, from the moment of asking; a piece
    may hold several tokens. `server` holds the server's own counts, by name; `token_ids` are
    there only where the request asked for them.
    """

    question: Question
    text: str = ""
    tokens: int = 0
    e2e_s: float = 0.0
    chunk_s: tuple[float, ...] = ()
    server: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    token_ids: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is an answer to measure."""
        return not self.error and self.tokens > 0

    @property
    def gaps_s(self) -> list[float]:
        """Times between pieces of text."""
        return [b - a for a, b in zip(self.chunk_s, self.chunk_s[1:], strict=False)]


@dataclass(frozen=True, slots=True)
class TurnResult:
    """A turn's samples and how long the whole turn took."""

    turn: Turn
    samples: tuple[Sample, ...]
    wall_s: float


class Target(Protocol):
    """Something that answers. It never raises for a failed request: the sample says so."""

    async def ask(self, question: Question) -> Sample: ...
