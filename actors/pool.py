"""A pool replica: owns one worker's life and announces it to the routers.

It is no part of the data path; routers call the worker directly.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.liveness import Liveness
from actors.messages import Waiting, WorkerEntry, WorkerReport
from actors.usage import WorkerUsage, usage
from actors.worker import WorkerSpec

logger = logging.getLogger("ray.serve")


class WorkerGone(Exception):  # noqa: N818 - names what happened to the worker
    """The worker's process is dead or out of reach."""


class WorkerUnreachable(WorkerGone):
    """It cannot be reached just now; whether it is dead, nobody knows."""


class WorkerPort(Protocol):
    """How a pool starts and asks its worker; Ray in production, a fake in tests."""

    def spawn(self, spec: WorkerSpec) -> Any:
        """Start a worker and return its handle; loading goes on in the background."""
        ...

    async def report(self, handle: Any) -> WorkerReport:
        """The worker's report, once it has loaded. WorkerGone when it is dead,
        WorkerUnreachable where that is not known."""
        ...

    async def missing(self, handle: Any) -> str | None:
        """Why its process has no place yet; None where it has, or is about to. WorkerGone where
        another worker would have one."""
        ...

    def tidy(self, handle: Any) -> None:
        """Have it drop sessions that nobody has asked for in a while, after what it is doing
        now; nothing is awaited."""
        ...

    async def close(self, handle: Any) -> None:
        """Have it end what it does beside its steps; it is about to be killed. Not for long."""
        ...

    def kill(self, handle: Any) -> None:
        """End it."""
        ...


class RegistryPort(Protocol):
    """The part of the registry that pools use."""

    def announce(self, entry: WorkerEntry, ttl_s: float) -> Awaitable[None]:
        """List or renew, for so long."""
        ...

    def wait(self, waiting: Waiting, ttl_s: float) -> Awaitable[None]:
        """List as a worker that is to be, or renew, for so long."""
        ...

    def withdraw(self, worker_id: str) -> Awaitable[None]:
        """Unlist."""
        ...


@dataclass(slots=True)
class Pool:
    """Keeps one worker alive. `make_spec` gives each new worker its own name.

    `usage`: the worker's, None while there is none that is loaded.
    """

    make_spec: Callable[[], WorkerSpec]
    workers: WorkerPort
    registry: RegistryPort
    liveness: Liveness = field(default_factory=Liveness)
    starts: int = 0
    failures: int = 0
    last_error: str = ""
    report: WorkerReport | None = None
    usage: WorkerUsage | None = None
    draining: bool = False
    _handle: Any = None
    _in_a_row: int = 0

    async def supervise(self) -> None:
        """Start, announce, renew; start anew when the worker dies. Ends when cancelled, or with
        a worker that drains."""
        while not self.draining:
            spec = self.make_spec()
            try:
                await self._back_off(spec)
                await self._run(spec)
            except WorkerGone as error:
                self.failures += 1
                self._in_a_row += 1
                self.last_error = str(error)
                logger.warning("worker %s is gone: %s", spec.worker_id, error)
            finally:
                self.report = self.usage = None
                await self._tell(self.registry.withdraw(spec.worker_id))

    async def drain(self, limit_s: float) -> None:
        """Have the routers move the worker's sessions to others; back when it holds none, after
        about `limit_s` at the latest, or at once where it is not in use yet. To be cancelled
        then; meanwhile it serves on."""
        self.draining = True
        if self.report is not None:
            await self._empty(self.report, limit_s)
        if self.report is not None:
            await self.workers.close(self._handle)

    async def _empty(self, before: WorkerReport, limit_s: float) -> None:
        await self._announce(self._handle, before)
        for _ in range(math.ceil(limit_s / self.liveness.heartbeat_s)):
            await asyncio.sleep(self.liveness.heartbeat_s)
            report = self.report
            # What a router sent before it heard may not be in the report of before.
            if report is None or (report is not before and not report.sessions):
                return

    async def _back_off(self, spec: WorkerSpec) -> None:
        """Longer after each failure in a row."""
        if self._in_a_row:
            await self._waits(spec, False, f"starts anew after: {self.last_error}")
            await asyncio.sleep(min(self.liveness.heartbeat_s * self._in_a_row, 30.0))

    async def _run(self, spec: WorkerSpec) -> None:
        try:
            handle = self.workers.spawn(spec)
        except Exception as error:  # whatever Ray does not take; told like any other end
            raise WorkerGone(f"it could not be started: {error}") from error
        self.starts += 1
        try:
            await self._load(spec, handle)
            await self._keep(spec, handle)
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
                await asyncio.wait([loaded], timeout=self.liveness.heartbeat_s)
            loaded.result()
        finally:
            loaded.cancel()
            await asyncio.gather(loaded, return_exceptions=True)

    async def _waits(self, spec: WorkerSpec, placed: bool, why: str) -> None:
        waiting = Waiting(spec.worker_id, spec.pool, placed, why)
        await self._tell(self.registry.wait(waiting, self.liveness.silence_s))

    async def _keep(self, spec: WorkerSpec, handle: Any) -> None:
        self._handle = handle
        report = await self._ask(spec, handle)
        while True:
            self.usage, self.report = usage(report, self.report), report
            if report.sessions:
                # Its routers release what they leave; one that died or lost it cannot.
                self.workers.tidy(handle)
            await self._announce(handle, report)
            await asyncio.sleep(self.liveness.heartbeat_s)
            report = await self._ask(spec, handle)
            self._in_a_row = 0

    async def _announce(self, handle: Any, report: WorkerReport) -> None:
        entry = WorkerEntry(handle, report, self.draining)
        await self._tell(self.registry.announce(entry, self.liveness.silence_s))

    async def _ask(self, spec: WorkerSpec, handle: Any) -> WorkerReport:
        """Until it answers its announcement runs out, so routers leave it alone."""
        dead_s = self.liveness.dead_s
        try:
            async with asyncio.timeout(dead_s):
                return await self._reached(spec, handle)
        except TimeoutError:
            raise WorkerGone(f"it has not answered for {dead_s:g} s") from None

    async def _reached(self, spec: WorkerSpec, handle: Any) -> WorkerReport:
        """Its report, as soon as it can be reached; until then routers hear that it is away."""
        while True:
            try:
                return await self.workers.report(handle)
            except WorkerUnreachable as error:
                logger.warning("worker %s is out of reach: %s", spec.worker_id, error)
                await self._tell(self.registry.withdraw(spec.worker_id))
                await self._waits(spec, True, f"out of reach: {error}")
                await asyncio.sleep(self.liveness.heartbeat_s)

    async def _tell(self, message: Awaitable[None]) -> None:
        """A registry that is away costs no worker: it is told again at the next heartbeat, and
        what was not withdrawn expires."""
        try:
            async with asyncio.timeout(self.liveness.silence_s):
                await message
        except Exception as error:
            logger.warning("the registry did not answer: %r", error)
