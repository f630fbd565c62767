"""Keeps an answer going when its router is lost: another one is asked for the rest.

A session is its token ids, its sampling and its seed. So a router that never heard of it is told
the prompt with what the client has behind it, and goes on with the same tokens (of a lossy plan:
from the same prefix); nothing is sent twice or left out. It knows routers as a callable.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from actors.ingress.errors import Overloaded, Unavailable
from actors.liveness import FailoverSettings
from actors.messages import GenerateRequest, Output, Refusal
from actors.pulse import heard
from policies.counting import together
from policies.vocabulary import Commit, Counters, SessionSpec

logger = logging.getLogger("ray.serve")

Ask = Callable[[GenerateRequest], AsyncGenerator[list[Output], None]]
"""Asks a router that is there, whichever; closing the generator cancels. Raises RouterLost."""


class RouterLost(Exception):  # noqa: N818 - names what happened to the router
    """The router's process is dead or out of reach."""


@dataclass(slots=True)
class _Rest:
    """What is left of one session. `before`: what it had cost when its router was lost."""

    spec: SessionSpec
    tokens: list[int] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    before: Counters | None = None
    done: bool = False

    def take(self, commit: Commit) -> Commit:
        """The commit as one of the whole session."""
        self.tokens += commit.tokens
        self.done = commit.finish is not None
        if (before := self.before) is not None:
            counters = together(before, commit.counters)
            stages = tuple(replace(s, round=s.round + before.rounds) for s in commit.stages)
            commit = replace(commit, counters=counters, stages=stages)
        self.counters = commit.counters
        return commit

    def resume(self, attempt: int) -> SessionSpec:
        """For another router, under another name: the one that was lost may still be at it."""
        self.before = self.counters
        name = f"{self.spec.session_id}~{attempt}"
        return replace(self.spec, session_id=name, tokens=(*self.spec.tokens, *self.tokens))


class _Patience:
    """How long to go on trying, and when to try again."""

    def __init__(self, settings: FailoverSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._num_lost = 0
        self.alive()

    def alive(self) -> None:
        """A router has said something."""
        self._heard_s = self._clock()
        self._backoff_s = self._settings.first_backoff_s
        self._is_heard = True

    async def lost(self) -> None:
        """Returns when it is time for the next try. Raises Unavailable."""
        settings = self._settings
        self._num_lost += self._is_heard
        self._is_heard = False
        if self._num_lost > settings.max_lost:
            raise Unavailable(f"This request has lost its router {self._num_lost} times.")
        if self._clock() - self._heard_s + self._backoff_s > settings.wait_s:
            raise Unavailable(f"No router has answered for {settings.wait_s:g} s.")
        await asyncio.sleep(self._backoff_s)
        self._backoff_s = min(2 * self._backoff_s, settings.silence_s)


class Failover:
    """Requests over routers that may die."""

    def __init__(
        self, ask: Ask, settings: FailoverSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._settings = settings
        self._clock = clock

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[tuple[int, Commit], None]:
        """See Backend."""
        rests = [_Rest(spec) for spec in request.sessions]
        patience = _Patience(self._settings, self._clock)
        left, attempt = list(range(len(rests))), 0
        while True:
            try:
                async with aclosing(self._batches(request)) as batches:
                    async for batch in batches:
                        patience.alive()
                        for place, commit in batch:
                            yield left[place], rests[left[place]].take(commit)
            except (RouterLost, TimeoutError) as error:
                logger.warning("request %s: its router is lost: %s", request.request_id, error)
            except Overloaded:
                # What has begun is not sent away: a place will be free.
                if not attempt:
                    raise
            left = [i for i, rest in enumerate(rests) if not rest.done]
            if not left:
                return
            await patience.lost()
            attempt += 1
            request = replace(request, sessions=tuple(rests[i].resume(attempt) for i in left))

    async def _batches(
        self, request: GenerateRequest
    ) -> AsyncGenerator[list[tuple[int, Commit]], None]:
        """What a router says. Raises Overloaded, Unavailable, RouterLost, TimeoutError."""
        async with aclosing(heard(self._ask(request), self._settings.silence_s)) as batches:
            async for batch in batches:
                commits: list[tuple[int, Commit]] = []
                for output in batch:
                    if isinstance(output, Refusal):
                        if commits:
                            yield commits
                        raise _as_error(output)
                    commits.append(output)
                yield commits


def _as_error(refusal: Refusal) -> Exception:
    if refusal.kind == "overloaded":
        return Overloaded(refusal.retry_after_s)
    if refusal.kind == "unavailable":
        return Unavailable(refusal.message)
    return RuntimeError(refusal.message)
