"""A pool replica: owns one worker's life and announces it to the routers.

It is no part of the data path; routers call the worker directly.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from actors.messages import Waiting, WorkerEntry, WorkerReport
from actors.worker import WorkerSpec

logger = logging.getLogger("ray.serve")


class WorkerGone(Exception):  # noqa: N818 - names what happened to the worker
    """The worker's process is dead or out of reach."""


class WorkerPort(Protocol):
    """How a pool starts and asks its worker; Ray in production, a fake in tests."""

    def spawn(self, spec: WorkerSpec) -> Any:
        """Start a worker and return its handle; loading goes on in the background."""
        ...

    async def report(self, handle: Any) -> WorkerReport:
        """The worker's report, once it has loaded. WorkerGone when it is dead."""
        ...

    async def missing(self, handle: Any) -> str | None:
        """Why its process has no place yet; None where it has, or is about to. WorkerGone where
        another worker would have one."""
        ...

    def tidy(self, handle: Any) -> None:
        """Have it drop sessions that nobody has asked for in a while, after what it is doing
        now; nothing is awaited."""
        ...

    def kill(self, handle: Any) -> None:
        """End it."""
        ...


class RegistryPort(Protocol):
    """The part of the registry that pools use."""

    def announce(self, entry: WorkerEntry) -> Awaitable[None]:
        """List or renew."""
        ...

    def wait(self, waiting: Waiting) -> Awaitable[None]:
        """List as a worker that is to be, or renew."""
        ...

    def withdraw(self, worker_id: str) -> Awaitable[None]:
        """Unlist."""
        ...


@dataclass(slots=True)
class Pool:
    """Keeps one worker alive. `make_spec` gives each new worker its own name."""

    make_spec: Callable[[], WorkerSpec]
    workers: WorkerPort
    registry: RegistryPort
    heartbeat_s: float = 2.0
    starts: int = 0
    failures: int = 0
    last_error: str = ""
    report: WorkerReport | None = None

    async def supervise(self) -> None:
        """Start, announce, renew; start anew when the worker dies. Ends when cancelled."""
        while True:
            spec = self.make_spec()
            try:
                await self._back_off(spec)
                await self._run(spec)
            except WorkerGone as error:
                self.failures += 1
                self.last_error = str(error)
                logger.warning("worker %s is gone: %s", spec.worker_id, error)
            finally:
                self.report = None
                await _told(self.registry.withdraw(spec.worker_id))

    async def _back_off(self, spec: WorkerSpec) -> None:
        """Longer after each failure."""
        if self.failures:
            await self._waits(spec, False, f"starts anew after: {self.last_error}")
            await asyncio.sleep(min(self.heartbeat_s * self.failures, 30.0))

    async def _run(self, spec: WorkerSpec) -> None:
        handle = self.workers.spawn(spec)
        self.starts += 1
        try:
            await self._load(spec, handle)
            await self._keep(handle)
        finally:
            self.workers.kill(handle)

    async def _load(self, spec: WorkerSpec, handle: Any) -> None:
        """Until it has loaded, say each heartbeat what it waits for."""
        loaded = asyncio.ensure_future(self.workers.report(handle))
        told = ""
        try:
            while not loaded.done():
                why = await self.workers.missing(handle)
                if why is not None and why != told:
                    logger.warning("worker %s has no place yet: %s", spec.worker_id, why)
                    told = why
                await self._waits(spec, why is None, why or "loads")
                await asyncio.wait([loaded], timeout=self.heartbeat_s)
            loaded.result()
        finally:
            loaded.cancel()
            await asyncio.gather(loaded, return_exceptions=True)

    async def _waits(self, spec: WorkerSpec, placed: bool, why: str) -> None:
        await _told(self.registry.wait(Waiting(spec.worker_id, spec.pool, placed, why)))

    async def _keep(self, handle: Any) -> None:
        while True:
            self.report = await self.workers.report(handle)
            if self.report.sessions:
                # Its routers release what they leave; one that died or lost it cannot.
                self.workers.tidy(handle)
            await _told(self.registry.announce(WorkerEntry(handle, self.report)))
            await asyncio.sleep(self.heartbeat_s)


async def _told(message: Awaitable[None]) -> None:
    """A registry that is away costs no worker: it is told again at the next heartbeat, and
    what was not withdrawn expires."""
    try:
        await message
    except Exception:
        logger.exception("the registry did not answer")
