"""A backend that plays written answers, and a client that speaks raw ASGI."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from actors.messages import GenerateRequest
from policies.audit import AuditFigures
from policies.vocabulary import (
    Commit,
    Counters,
    FinishReason,
    SessionSpec,
    StageTime,
    Tier,
    TokenLogprobs,
)

TIERS = (Tier.DRAFT, Tier.SLIM, Tier.FULL)


def logprobs_of(spec: SessionSpec, tokens: Iterable[int]) -> tuple[TokenLogprobs, ...]:
    """Made up: the chosen token first, then its neighbours."""
    if spec.num_logprobs is None:
        return ()
    return tuple(
        TokenLogprobs(-0.25, tuple((t + i, -0.25 - i) for i in range(spec.num_logprobs)))
        for t in tokens
    )


def commits_of(spec: SessionSpec, answer: Iterable[int], sizes: Iterable[int]) -> Iterable[Commit]:
    """The answer cut at the first stop id or at max_tokens, in commits of `sizes`."""
    tokens: list[int] = []
    finish = FinishReason.LENGTH
    for token in itertools.islice(answer, spec.max_tokens):
        tokens.append(token)
        if token in spec.stop_ids:
            finish = FinishReason.STOP
            break
    tiers = tuple(TIERS[position % 3] for position in range(len(tokens)))
    start = 0
    for rounds, size in enumerate(sizes, start=1):
        end = min(start + size, len(tokens))
        yield Commit(
            tokens=tuple(tokens[start:end]),
            tiers=tiers[start:end],
            counters=Counters(rounds=rounds, draft_tokens=4 * rounds, full_rows=end + rounds),
            plan=spec.plan,
            finish=finish if end == len(tokens) else None,
            logprobs=logprobs_of(spec, tokens[start:end]),
        )
        if end == len(tokens):
            return
        start = end


@dataclass
class FakeBackend:
    """Plays `answer(spec)`; `refusal` is raised before, `failure` after `fail_after` commits.

    With `hang_after` it goes silent after so many commits, and sets `silent`.
    """

    answer: Callable[[SessionSpec], Iterable[int]]
    sizes: tuple[int, ...] = (1, 3, 2)
    refusal: Exception | None = None
    failure: Exception | None = None
    fail_after: int = 0
    hang_after: int | None = None
    requests: list[GenerateRequest] = field(default_factory=list)
    num_completed: int = 0
    num_cancelled: int = 0
    is_ready: bool = True
    counters: Counters | None = None
    audit: AuditFigures | None = None
    stages: tuple[StageTime, ...] = ()

    def __post_init__(self) -> None:
        self.silent = asyncio.Event()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[tuple[int, Commit], None]:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        plays = [
            [
                (index, self._labelled(commit))
                for commit in commits_of(spec, self.answer(spec), itertools.cycle(self.sizes))
            ]
            for index, spec in enumerate(request.sessions)
        ]
        turns = itertools.chain.from_iterable(itertools.zip_longest(*plays))
        try:
            for count, play in enumerate(turn for turn in turns if turn is not None):
                if self.failure is not None and count == self.fail_after:
                    raise self.failure
                if count == self.hang_after:
                    self.silent.set()
                    await asyncio.Event().wait()
                yield play
                await asyncio.sleep(0)
            self.num_completed += 1
        except (asyncio.CancelledError, GeneratorExit):
            self.num_cancelled += 1
            raise

    def _labelled(self, commit: Commit) -> Commit:
        audit = self.audit if commit.finish is not None else None
        counters = self.counters or commit.counters
        return replace(commit, counters=counters, audit=audit, stages=self.stages)

    async def health(self) -> dict[str, Any]:
        return {"status": "ok"}

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        return self.is_ready, {"full": 1}

    async def metrics(self) -> str:
        return "# HELP viaserve_x X.\n# TYPE viaserve_x gauge\nviaserve_x 1\n"

    async def version(self) -> dict[str, Any]:
        return {"version": "0"}


class RawClient:
    """One ASGI request whose client can leave at any moment."""

    def __init__(self, app: Any, path: str, body: dict[str, Any]) -> None:
        self._app = app
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self._body = json.dumps(body).encode()
        self._leave = asyncio.Event()
        self._body_read = False
        self.got_body = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    def leave(self) -> None:
        self._leave.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._body_read:
            self._body_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        if message.get("body"):
            self.got_body.set()

    async def run(self) -> None:
        await self._app(self._scope, self._receive, self._send)
