"""Commits in, text out: the state of each choice, and the loop that drives the backend.

Tokens are taken one by one, so text, finish reason and token count do not depend on how the
backend grouped them into commits. It knows no JSON and no HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from actors.ingress.admission import Admitted
from actors.ingress.errors import Unavailable
from actors.ingress.logprobs import ScoredToken
from actors.ingress.stops import StopMatcher
from actors.ingress.text import StreamDecoder, TextCodec
from actors.messages import GenerateRequest
from policies.audit import AuditFigures
from policies.vocabulary import Commit, Counters, FinishReason, SessionSpec, StageTime, Tier


class Backend(Protocol):
    """What runs the sessions, as the ingress sees it."""

    def generate(self, request: GenerateRequest) -> AsyncGenerator[tuple[int, Commit], None]:
        """(index in request.sessions, commit) until every session has finished.

        Closing the generator cancels the request on every tier. Raises Overloaded before the
        first commit, Unavailable at any time.
        """
        ...

    async def health(self) -> dict[str, Any]:
        """Facts for /health. Raises Unavailable where the process should be restarted."""
        ...

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether requests can be served now, and why (not)."""
        ...

    async def version(self) -> dict[str, Any]:
        """What is running, for /version."""
        ...

    async def metrics(self) -> str:
        """The page of /metrics, in Prometheus' text format."""
        ...


@dataclass(frozen=True, slots=True)
class Delta:
    """What one commit adds to a choice. `tokens`, `tiers` and `chars` have one entry for each
    token counted, `scored` one for each token shown, if the request asks for logarithms.
    `chars`: characters of `text` that came out with the token."""

    text: str
    tokens: tuple[int, ...]
    tiers: tuple[Tier, ...]
    chars: tuple[int, ...]
    scored: tuple[ScoredToken, ...]
    finish: str | None

    def after(self, earlier: Delta | None) -> Delta:
        """Both in one."""
        if earlier is None:
            return self
        return Delta(
            earlier.text + self.text,
            earlier.tokens + self.tokens,
            earlier.tiers + self.tiers,
            earlier.chars + self.chars,
            earlier.scored + self.scored,
            self.finish,
        )


class Choice:
    """One answer as it grows. `num_tokens` counts stop tokens and cut text's tokens too."""

    def __init__(
        self, index: int, spec: SessionSpec, decoder: StreamDecoder, matcher: StopMatcher
    ) -> None:
        self.index = index
        self.spec = spec
        self.plan = spec.plan
        self.counters = Counters()
        self.audit: AuditFigures | None = None
        self.why = ""
        self.tokens: list[int] = []
        self.tiers: list[Tier] = []
        self.scored: list[ScoredToken] = []
        self.stages: list[StageTime] = []
        self.finish: str | None = None
        self._decoder = decoder
        self._matcher = matcher
        self._pieces: list[str] = []
        self._num_decoded = 0

    @property
    def mode(self) -> str:
        """What the request asked for; "auto" where the router chooses."""
        return self.spec.mode

    @property
    def num_tokens(self) -> int:
        """completion_tokens of this choice."""
        return len(self.tiers)

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._pieces)

    def take(self, commit: Commit) -> Delta:
        """Add a commit. Raises Unavailable if the backend gave the session up."""
        assert self.finish is None
        if commit.finish is FinishReason.CANCELLED:
            raise Unavailable("The server cancelled this request.")
        self.counters, self.plan, self.audit = commit.counters, commit.plan, commit.audit
        self.why = commit.why
        self.stages += commit.stages
        num_before, num_scored = self.num_tokens, len(self.scored)
        pieces: list[str] = []
        hidden = self._hidden_token(commit)
        for i, (token, tier) in enumerate(zip(commit.tokens, commit.tiers, strict=True)):
            self.tokens.append(token)
            self.tiers.append(tier)
            pieces.append("")
            if token != hidden:
                if commit.logprobs:
                    told = ScoredToken(token, commit.logprobs[i], self._num_decoded)
                    self.scored.append(told)
                decoded = self._decoder.push(token)
                self._num_decoded += len(decoded)
                pieces[-1] = self._matcher.push(decoded)
            if self._matcher.matched:
                break
        if commit.finish is not None and not self._matcher.matched:
            rest = self._matcher.push(self._decoder.flush()) + self._matcher.flush()
            pieces = [*pieces[:-1], "".join(pieces[-1:]) + rest]
        if self._matcher.matched:
            self.finish = FinishReason.STOP.value
        elif commit.finish is not None:
            self.finish = commit.finish.value
        text = "".join(pieces)
        self._pieces.append(text)
        return Delta(
            text,
            tuple(self.tokens[num_before:]),
            tuple(self.tiers[num_before:]),
            tuple(len(piece) for piece in pieces[: self.num_tokens - num_before]),
            tuple(self.scored[num_scored:]),
            self.finish,
        )

    def _hidden_token(self, commit: Commit) -> int | None:
        """The stop token that ends the session with this commit; it is never shown."""
        if commit.finish is not FinishReason.STOP or not commit.tokens:
            return None
        last = commit.tokens[-1]
        return last if last in self.spec.stop_ids else None


def open_choices(admitted: Admitted, codec: TextCodec) -> list[Choice]:
    """A fresh choice for each session."""
    return [
        Choice(index, spec, codec.stream_decoder(), StopMatcher(admitted.stops))
        for index, spec in enumerate(admitted.generate.sessions)
    ]


async def drive(
    backend: Backend, request: GenerateRequest, choices: list[Choice]
) -> AsyncGenerator[tuple[Choice, Delta], None]:
    """Run `request` and yield what each commit adds, until every choice has finished.

    The backend's generator is closed early, which cancels, only if a stop string ended a
    choice that the backend would continue, or if this generator is closed itself.
    """
    commits = backend.generate(request)
    running = set(range(len(choices)))
    try:
        async for index, commit in commits:
            choice = choices[index]
            if commit.finish is not None:
                running.discard(index)
            if choice.finish is None:
                yield choice, choice.take(commit)
            if running and all(choice.finish for choice in choices):
                break
    finally:
        await commits.aclose()
    if not all(choice.finish for choice in choices):
        raise Unavailable("The server ended this request before its answer was complete.")
