"""An engine that notes what its calls cost. It knows a clock and nothing of what is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from actors.engine.seam import Engine, EngineStats, Extend, Propose, Row
from policies.estimates import TierTiming
from policies.vocabulary import Tier


class Timed:
    """Stands in for `engine`; `clock` gives seconds."""

    def __init__(self, tier: Tier, engine: Engine, clock: Callable[[], float]) -> None:
        self._tier = tier
        self._engine = engine
        self._clock = clock
        self._seconds = 0.0
        self._since = engine.stats()
        self._called = False

    def take(self) -> TierTiming | None:
        """What was computed since the last time; None without a call."""
        now = self._engine.stats()
        forwards, rows = now.forwards - self._since.forwards, now.rows - self._since.rows
        seconds, called = self._seconds, self._called
        self._seconds, self._since, self._called = 0.0, now, False
        return TierTiming(self._tier, seconds, forwards, rows) if called else None

    def score(self, requests: Sequence[Extend]) -> list[list[Row]]:
        """See Engine."""
        with self._noted():
            return self._engine.score(requests)

    def extend(self, requests: Sequence[Extend]) -> list[list[int]]:
        """See Engine."""
        with self._noted():
            return self._engine.extend(requests)

    def propose(self, requests: Sequence[Propose]) -> list[list[int]]:
        """See Engine."""
        with self._noted():
            return self._engine.propose(requests)

    def truncate(self, session_id: str, length: int) -> None:
        """See Engine."""
        self._engine.truncate(session_id, length)

    def release(self, session_id: str) -> None:
        """See Engine."""
        self._engine.release(session_id)

    def stats(self) -> EngineStats:
        """See Engine."""
        return self._engine.stats()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        begin = self._clock()
        try:
            yield
        finally:
            self._seconds += self._clock() - begin
            self._called = True
