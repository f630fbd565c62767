"""Starts the processes that are plain Ray actors: workers, the registry, the audit's book.

The only place that turns those classes into actors and says where they run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from actors.audit_book import AuditBook
from actors.engine.build import EngineSpec
from actors.messages import (
    Membership,
    StepReply,
    StepRequest,
    Waiting,
    WorkerEntry,
    WorkerReport,
)
from actors.pool import WorkerGone, WorkerUnreachable
from actors.registry import Registry
from actors.worker import Worker, WorkerSpec
from cluster.config_pools import PoolConfig
from cluster.nodes import actor_is_placed
from cluster.sizes import added_niceness, cpus_of, worker_env
from cluster.ways import Ways, on_way
from infra.probe.sampler import ProbeSettings
from infra.tracing import TracingSettings
from policies.audit import AuditRow, AuditSettings
from policies.audit_state import AuditState

NAMESPACE = "viaserve"
_REGISTRY = "viaserve-registry"
_AUDIT_BOOK = "viaserve-audit"
_CLOSE_S = 2.0
_ON_HEAD = {"node:__internal_head__": 0.001}
"""A resource that Ray's head node alone has. Without that node there is no cluster anyway."""


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Workers of one pool as Ray actors; the port that a Pool uses."""

    pool: PoolConfig
    _picked: dict[Any, PoolConfig] = field(default_factory=dict)

    def spawn(self, spec: WorkerSpec) -> Any:
        """Start a worker actor with the pool's resources, or those of a fallback."""
        ways = Ways.of_actor(self.pool)
        way = ways.pick()
        options = actor_options(way) | ways.labels(way)
        handle = worker_actor().options(**options).remote(on_way(spec, way))
        self._picked[handle] = way
        return handle

    async def report(self, handle: Any) -> WorkerReport:
        """Ask a worker; waits until it has loaded."""
        return await report_of(handle)

    async def missing(self, handle: Any) -> str | None:
        """See WorkerPort."""
        ways, way = Ways.of_actor(self.pool), self._picked[handle]
        return await ways.missing(way, partial(actor_is_placed, handle))

    def tidy(self, handle: Any) -> None:
        """See WorkerPort."""
        tidy(handle)

    async def close(self, handle: Any) -> None:
        """See WorkerPort."""
        await close_worker(handle)

    def kill(self, handle: Any) -> None:
        """End it at once."""
        self._picked.pop(handle, None)
        ray.kill(handle)


def actor_options(pool: PoolConfig) -> dict[str, Any]:
    """What a process of a worker needs, apart from where it runs."""
    return {
        "num_cpus": cpus_of(pool),
        "num_gpus": pool.num_gpus,
        "resources": pool.resources,
        "runtime_env": {"env_vars": worker_env(pool)},
        "max_restarts": 0,
        "max_concurrency": 1,
    }


def worker_actor() -> Any:
    """The Worker as an actor class. `report` has its own thread, so that a long step does not
    look like a dead worker."""
    remote: Any = ray.remote
    return remote(concurrency_groups={"control": 1})(Worker)


async def report_of(handle: Any) -> WorkerReport:
    """A worker's report, once it has loaded; see WorkerPort."""
    try:
        return await handle.report.options(concurrency_group="control").remote()
    except ActorUnavailableError as error:
        raise WorkerUnreachable(reason_of(error)) from error
    except RayActorError as error:
        raise WorkerGone(reason_of(error)) from error


def tidy(handle: Any) -> None:
    """An empty step; every step drops idle sessions first."""
    handle.step.remote(StepRequest(()))


async def close_worker(handle: Any) -> None:
    """Bounded: nobody waits long for spans, or for a worker that hangs."""
    with contextlib.suppress(RayActorError, TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await handle.close.options(concurrency_group="control").remote()


@dataclass(frozen=True, slots=True)
class SpecMaker:
    """Names and describes the workers of one pool."""

    name: str
    pool: PoolConfig
    engine: EngineSpec
    tracing: TracingSettings = field(default_factory=TracingSettings)

    def __call__(self) -> WorkerSpec:
        """A spec with a name of its own."""
        spec = WorkerSpec(
            worker_id=f"{self.name}-{uuid4().hex[:8]}",
            pool=self.name,
            engine=self.engine,
            threads=0,
            niceness=added_niceness(self.pool),
            lease="cores" if self.pool.cores == "lease" else None,
            probe=ProbeSettings(interval_s=self.pool.probe_s),
            tracing=self.tracing,
        )
        return on_way(spec, self.pool)


async def call_worker(handle: Any, request: StepRequest) -> StepReply:
    """The router's way to a worker: one direct actor call."""
    try:
        return await handle.step.remote(request)
    except RayActorError as error:
        raise WorkerGone(reason_of(error)) from error


class RegistryClient:
    """The registry actor of this cluster, made where it is missing."""

    def __init__(self) -> None:
        self._actor: Any = None

    async def announce(self, entry: WorkerEntry, ttl_s: float) -> None:
        """See Registry."""
        await self._call("announce", entry, ttl_s)

    async def wait(self, waiting: Waiting, ttl_s: float) -> None:
        """See Registry."""
        await self._call("wait", waiting, ttl_s)

    async def withdraw(self, worker_id: str) -> None:
        """See Registry."""
        await self._call("withdraw", worker_id)

    async def watch(self, version: int, timeout_s: float) -> Membership:
        """See Registry."""
        return await self._call("watch", version, timeout_s)

    async def _call(self, method: str, *args: Any) -> Any:
        if self._actor is None:
            # Looked up on a thread: behind a dead link it blocks, and streams run on this loop.
            self._actor = await asyncio.to_thread(_registry_actor)
        try:
            return await getattr(self._actor, method).remote(*args)
        except RayActorError:
            self._actor = None
            raise


def _registry_actor() -> Any:
    return _shared(Registry, _REGISTRY, max_concurrency=1000)


def _shared(kind: type, name: str, *args: Any, **options: Any) -> Any:
    """The one actor of that name in the cluster, made where it is missing: on the head, so that
    no other host takes it along."""
    return (
        ray.remote(kind)
        .options(
            name=name,
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            resources=_ON_HEAD,
            max_restarts=-1,
            **options,
        )
        .remote(*args)
    )


class AuditClient:
    """The audit's book of this cluster, made where it is missing."""

    def __init__(self, trio: str, settings: AuditSettings) -> None:
        self._trio = trio
        self._settings = settings

    async def observe(self, rows: Sequence[AuditRow]) -> AuditState:
        """See AuditBook."""
        return await self._book().observe.remote(rows)

    async def configure(self, settings: AuditSettings) -> AuditState:
        """See AuditBook."""
        self._settings = settings
        return await self._book().configure.remote(self._trio, settings)

    def _book(self) -> Any:
        return _shared(AuditBook, _AUDIT_BOOK, self._trio, self._settings, ClusterStore())


class ClusterStore:
    """Serve's own store: the key-value part of Ray's control service. It outlives every
    process but that one."""

    def load(self) -> str | None:
        """See Store."""
        text = _internal_kv_get(_AUDIT_BOOK, namespace=NAMESPACE)
        return None if text is None else text.decode()

    def save(self, text: str) -> None:
        """See Store."""
        _internal_kv_put(_AUDIT_BOOK, text, namespace=NAMESPACE)


def end_shared() -> None:
    """End the actors that belong to no deployment, if they are there."""
    for name in (_REGISTRY, _AUDIT_BOOK):
        with contextlib.suppress(ValueError):
            ray.kill(ray.get_actor(name, namespace=NAMESPACE))


def reason_of(error: BaseException | None) -> str:
    """The last line of an error of Ray's, which says most, without its guesses at what may have
    been the cause: they are the same whatever it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(" Some common causes include")[0] if lines else type(error).__name__
