"""Who is there: pools announce their workers, routers watch. A plain class, run as one actor.

It keeps nothing that is not announced again within seconds, so its own death loses nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from actors.messages import Membership, Waiting, WorkerEntry


class Registry:
    """The workers that were announced within the last `ttl_s` seconds."""

    def __init__(self, ttl_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: dict[str, tuple[WorkerEntry, float]] = {}
        self._waiting: dict[str, tuple[Waiting, float]] = {}
        self._version = 0
        self._changed = asyncio.Condition()

    async def announce(self, entry: WorkerEntry) -> None:
        """List the worker, or renew it."""
        worker_id = entry.report.worker_id
        self._waiting.pop(worker_id, None)
        known = worker_id in self._entries
        self._entries[worker_id] = (entry, self._clock() + self._ttl_s)
        if not known:
            await self._bump()

    async def wait(self, waiting: Waiting) -> None:
        """The worker is not there yet; who watches hears of it with the next answer."""
        self._waiting[waiting.worker_id] = (waiting, self._clock() + self._ttl_s)

    async def withdraw(self, worker_id: str) -> None:
        """The worker is gone."""
        self._waiting.pop(worker_id, None)
        if self._entries.pop(worker_id, None) is not None:
            await self._bump()

    async def watch(self, version: int, timeout_s: float) -> Membership:
        """The membership as soon as it differs from `version`, at the latest after timeout_s."""
        await self._expire()
        if version == self._version:
            try:
                async with self._changed:
                    await asyncio.wait_for(self._changed.wait(), timeout_s)
            except TimeoutError:
                await self._expire()
        workers = tuple(entry for entry, _ in self._entries.values())
        waiting = tuple(waiting for waiting, _ in self._waiting.values())
        return Membership(self._version, workers, waiting)

    async def _expire(self) -> None:
        now = self._clock()
        for worker_id in [w for w, (_, until) in self._waiting.items() if until < now]:
            del self._waiting[worker_id]
        for worker_id in [w for w, (_, until) in self._entries.items() if until < now]:
            await self.withdraw(worker_id)

    async def _bump(self) -> None:
        self._version += 1
        async with self._changed:
            self._changed.notify_all()
