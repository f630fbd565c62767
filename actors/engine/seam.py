"""The narrow seam between a worker and whatever computes tokens for one tier.

An engine knows token ids and its own cache; it knows no network, plan or router. Every verb
is idempotent: asked again for the same tokens it gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from policies.vocabulary import SamplingSpec, TokenLogprobs, Verdict


@dataclass(slots=True, eq=False)
class Context:
    """A session as a worker holds it. `tokens` grows and shrinks; the worker owns it.

    After `tokens` was cut below a length that an engine may have cached, the worker says so
    with `truncate`.
    """

    session_id: str
    sampling: SamplingSpec
    stop_ids: frozenset[int] = frozenset()
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Extend:
    """Cache the first `upto` tokens of the context; choose g after each of the last `num_score`.

    0 <= num_score <= upto. The answer has num_score rows; the last one's choice is
    g(tokens[:upto]). With `judge` a row also has the verdict on the token that the context
    holds at its place, if it holds one; with `num_logprobs` the logarithms of the chosen
    token and of so many best ones.
    """

    context: Context
    upto: int
    num_score: int
    judge: bool = False
    num_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What one scored row says; see Extend."""

    chosen: int
    verdict: Verdict | None = None
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True)
class Propose:
    """Choose up to `num_tokens` ids one after another; stops after a stop id.

    The engine appends them to `context.tokens`; the answer is what was appended.
    """

    context: Context
    num_tokens: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine holds and has done. Sizes in bytes and tokens; counts are cumulative.

    `matchers`: sessions whose grammar is followed, by all engines of the worker together.
    """

    sessions: int
    slots: int
    cached_tokens: int
    slot_tokens: int
    weight_bytes: int
    kv_bytes_per_token: int
    forwards: int
    rows: int
    matchers: int = 0


class NoRoom(Exception):  # noqa: N818 - a condition that the caller handles, not a fault
    """More sessions in one step than the engine has slots for."""


class Engine(Protocol):
    """One tier's tokens."""

    def score(self, requests: Sequence[Extend]) -> list[list[Row]]:
        """Answer all requests in as few forwards as the token budget allows."""
        ...

    def extend(self, requests: Sequence[Extend]) -> list[list[int]]:
        """As `score`, but the chosen ids alone."""
        ...

    def propose(self, requests: Sequence[Propose]) -> list[list[int]]:
        """Decode for all requests side by side."""
        ...

    def truncate(self, session_id: str, length: int) -> None:
        """Forget what is cached from position `length` on; O(1)."""
        ...

    def release(self, session_id: str) -> None:
        """Forget the session; unknown ids are ignored."""
        ...

    def stats(self) -> EngineStats:
        """A snapshot."""
        ...
