"""Who is there: pools announce their workers, routers watch. A plain class, run as one actor.

It keeps nothing that is not announced again within seconds, so its own death loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from actors.messages import Membership, Waiting, WorkerEntry


class Registry:
    """The workers whose last announcement still holds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[str, tuple[WorkerEntry, float]] = {}
        self._waiting: dict[str, tuple[Waiting, float]] = {}
        self._version = 0
        self._changed = asyncio.Condition()

    async def announce(self, entry: WorkerEntry, ttl_s: float) -> None:
        """List the worker, or renew it, for so many seconds."""
        worker_id = entry.report.worker_id
        self._waiting.pop(worker_id, None)
        known = self._entries.get(worker_id)
        self._entries[worker_id] = (entry, self._clock() + ttl_s)
        if known is None or known[0].draining != entry.draining:
            await self._bump()

    async def wait(self, waiting: Waiting, ttl_s: float) -> None:
        """The worker is not there yet; who watches hears of it with the next answer."""
        self._waiting[waiting.worker_id] = (waiting, self._clock() + ttl_s)

    async def withdraw(self, worker_id: str) -> None:
        """The worker is gone."""
        self._waiting.pop(worker_id, None)
        if self._entries.pop(worker_id, None) is not None:
            await self._bump()

    async def watch(self, version: int, timeout_s: float) -> Membership:
        """The membership as soon as it differs from `version`, at the latest after timeout_s.
        It looks again when the first announcement may run out: nobody says that it has."""
        await self._expire()
        async with self._changed:
            if version == self._version:
                now = self._clock()
                ends_s = [until - now for _, until in self._entries.values()]
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), min([timeout_s, *ends_s]))
        await self._expire()
        workers = tuple(entry for entry, _ in self._entries.values())
        waiting = tuple(waiting for waiting, _ in self._waiting.values())
        return Membership(self._version, workers, waiting)

    async def _expire(self) -> None:
        now = self._clock()
        for worker_id in [w for w, (_, until) in self._waiting.items() if until <= now]:
            del self._waiting[worker_id]
        for worker_id in [w for w, (_, until) in self._entries.items() if until <= now]:
            await self.withdraw(worker_id)

    async def _bump(self) -> None:
        self._version += 1
        async with self._changed:
            self._changed.notify_all()
