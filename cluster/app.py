"""The Serve application: ingress, routers and pools, bound together.

The only file with Serve deployments. `serve run cluster.app:build config=FILE` and the config
file itself (`serve deploy FILE`) come in through `build`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from actors.auditor import Auditor, samples
from actors.engine.route import ModelError
from actors.heap import freeze_heap
from actors.ingress.app import create_app
from actors.ingress.settings import IngressSettings
from actors.ingress.tally import RequestTally
from actors.ingress.text import TextCodec
from actors.liveness import FailoverSettings, Liveness
from actors.messages import GenerateRequest, Output, Waiting
from actors.planner import Planner
from actors.pool import Pool
from actors.pulse import pulsed
from actors.router import Router, RouterSettings
from cluster import __version__
from cluster.backend import RouterBackend
from cluster.config import Config, ConfigError, parse, parse_live
from cluster.config_file import load
from cluster.fetch import FetchError
from cluster.metrics import catalogue
from cluster.metrics.requests import export_requests, export_values
from cluster.metrics.router import export_router, export_tally
from cluster.metrics.worker import WorkerMeter
from cluster.placement import AuditClient, RegistryClient, SpecMaker, call_worker
from cluster.preflight import Facts, check
from cluster.ranks import workers_of
from cluster.scaling import pool_replicas, pool_stats, router_replicas, router_stats
from infra.metrics import Exporter
from infra.tracing import Tracer, TracingSettings, open_tracer
from policies.lossy import LossySettings
from policies.plan_settings import ControllerSettings
from policies.vocabulary import Plan

logger = logging.getLogger("ray.serve")
_WATCH_S = 2.0
_ANSWER_S = 10.0
_LOOK_S = 1.0
_EXPORT_S = 2.0
"""Ray's agents forget a gauge that is not told anew within two of their intervals, which are of
10 seconds but may be set down to 2."""
_STOP_S = 5.0
_FLUSH_S = 2.0


class RouterDeployment:
    """A router replica and its watch on the registry."""

    def __init__(
        self,
        settings: RouterSettings,
        controller: ControllerSettings,
        fallback: Plan,
        trio: str,
        model: str,
        pulse_s: float,
        tracing: TracingSettings,
    ) -> None:
        self._tracer = open_tracer(tracing, "router")
        self._pulse_s = pulse_s
        self._exporter = _exporter(model)
        lossy = LossySettings()
        self._audit = AuditClient(trio, lossy.audit)
        self._auditor = Auditor(lossy, fallback, self._audit.observe)
        planner = Planner(controller, random.Random())
        self._router = Router(settings, call_worker, self._auditor, planner, tracer=self._tracer)
        self._waiting: tuple[Waiting, ...] = ()
        loop = asyncio.get_running_loop()
        self._watch = loop.create_task(self._follow())
        self._looks = loop.create_task(self._look_around())
        self._exports = loop.create_task(_again_and_again(self._export))
        freeze_heap()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve calls it at the start, and with new settings of a live server."""
        settings = parse_live(user_config).settings()
        self._auditor.configure(settings, await self._audit.configure(settings.audit))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[Output], None]:
        """See Router; with signs of life, so that a router that hangs is not waited for."""
        outputs = pulsed(self._router.generate(request), self._pulse_s)
        async with aclosing(outputs) as batches:
            async for batch in batches:
                yield batch

    async def status(self) -> dict[str, Any]:
        """See Router; and the workers that are to be."""
        return self._router.status() | {"waiting": [asdict(w) for w in self._waiting]}

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve asks where pools scale."""
        return router_stats(self._router.demand())

    async def __del__(self) -> None:
        await flush(self._tracer)

    async def _follow(self) -> None:
        registry, version = RegistryClient(), -1
        while True:
            try:
                async with asyncio.timeout(_WATCH_S + _ANSWER_S):
                    members = await registry.watch(version, _WATCH_S)
            except Exception as error:  # as when it is only starting
                logger.warning("the registry did not answer: %r", error)
                await asyncio.sleep(1.0)
                continue
            version, self._waiting = members.version, members.waiting
            self._router.set_members(members)

    async def _export(self) -> None:
        tally = self._router.tally()
        reported = samples(self._auditor.reported)
        export_router(self._exporter, self._router.status(), reported)
        export_tally(self._exporter, tally)
        await export_values(self._exporter, catalogue.QUEUE_TIME, tally.take_waits_s())

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                self._router.look()
            except Exception:  # prices may stand still, serving may not
                logger.exception("the router could not look at its pools")


class PoolDeployment:
    """A pool replica; its worker lives and dies with it."""

    def __init__(self, make_spec: SpecMaker, liveness: Liveness, model: str) -> None:
        workers = workers_of(make_spec.pool)
        self._drain_s = make_spec.pool.drain_s
        self._pool = Pool(make_spec, workers, RegistryClient(), liveness)
        self._meter = WorkerMeter(_exporter(model), make_spec.name)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._pool.supervise())
        self._exports = loop.create_task(_again_and_again(self._export))

    async def _export(self) -> None:
        if self._pool.report is not None:
            self._meter.saw(self._pool.report)

    def check_health(self) -> None:
        """Serve's health check: the supervisor itself must be alive."""
        if self._task.done():
            raise RuntimeError("the pool's supervisor has ended")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve asks where pools scale."""
        return pool_stats(self._pool.usage)

    async def __del__(self) -> None:
        await self._pool.drain(self._drain_s)
        tasks = self._task, self._exports
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class IngressDeployment:
    """An ingress replica: the FastAPI application over the routers."""

    def __init__(
        self,
        settings: IngressSettings,
        model_dir: str,
        facts: dict[str, Any],
        replicas: dict[str, int],
        failover: FailoverSettings,
        tracing: TracingSettings,
        router: DeploymentHandle,
        pools: list[DeploymentHandle],
    ) -> None:
        # Pools are bound here only so that Serve deploys them with the application.
        del pools
        codec = TextCodec.load(model_dir)
        backend = RouterBackend(router, facts, replicas, failover)
        self._tally = RequestTally()
        self._tracer = open_tracer(tracing, "ingress")
        self._app = create_app(settings, codec, backend, tally=self._tally, tracer=self._tracer)
        self._exporter = _exporter(settings.model_name)
        loop = asyncio.get_running_loop()
        self._exports = loop.create_task(_again_and_again(self._export))
        freeze_heap()

    async def _export(self) -> None:
        await export_requests(self._exporter, self._tally.take())

    def __serve_build_asgi_app__(self) -> Any:
        return self._app

    async def __del__(self) -> None:
        await flush(self._tracer)


async def flush(tracer: Tracer | None) -> None:
    """Serve ends the replica: tell the spans that are left, if somebody takes them."""
    if tracer is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await asyncio.to_thread(tracer.flush)


def _exporter(model: str) -> Exporter:
    return Exporter({"model_name": model})


async def _again_and_again(export: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(_EXPORT_S)
        try:
            await export()
        except Exception:  # metrics may stand still, serving may not
            logger.exception("metrics could not be exported")


def compose(facts: Facts) -> Application:
    """The application of checked facts."""
    config = facts.config
    # Serve must not queue or bound what the router bounds itself.
    waiting = config.router.max_running + config.router.max_queued
    open_requests = 4 * waiting * config.router.replicas
    router = _deployment(
        RouterDeployment,
        name="router",
        **router_replicas(config),
        max_ongoing_requests=open_requests,
        user_config=config.lossy.live(),
        label_selector=config.control.selector,
    ).bind(
        facts.router(),
        facts.controller(),
        config.plan.plan(),
        facts.trio,
        config.model.name,
        config.liveness.heartbeat_s,
        config.tracing.settings(),
    )
    pools = [
        _deployment(
            PoolDeployment,
            name=f"pool-{name}",
            graceful_shutdown_timeout_s=pool.drain_s + 2 * _STOP_S,
            label_selector=config.control.selector,
            **pool_replicas(config, name),
        ).bind(
            SpecMaker(name, pool, facts.engine(pool), config.tracing.settings()),
            config.liveness.pool(),
            config.model.name,
        )
        for name, pool in config.pools.items()
    ]
    ingress = _deployment(
        serve.ingress()(IngressDeployment),
        name="ingress",
        num_replicas=config.ingress.replicas,
        max_ongoing_requests=open_requests,
        label_selector=config.control.selector,
    )
    return ingress.bind(
        facts.ingress(),
        str(facts.model_dir),
        _about(facts),
        {name: pool.scale().min_workers for name, pool in config.pools.items()},
        config.liveness.failover(config.router.worker_wait_s),
        config.tracing.settings(),
        router,
        pools,
    )


def _deployment(replica: Any, label_selector: dict[str, str], **options: Any) -> Any:
    """A Serve deployment of a plain class; none of ours computes, so none reserves a CPU."""
    where = {"label_selector": label_selector} if label_selector else {}
    light = {
        "ray_actor_options": {"num_cpus": 0, **where},
        "graceful_shutdown_timeout_s": _STOP_S,
        "logging_config": {"enable_access_log": False},
    }
    return serve.deployment(replica, **light | options)


def _about(facts: Facts) -> dict[str, Any]:
    return {
        "version": __version__,
        "model": facts.config.model.name,
        "fingerprint": facts.fingerprint,
        "dtype": facts.dtype,
        "context": facts.config.model.context,
        "tiers": sorted({str(t) for pool in facts.config.pools.values() for t in pool.tiers}),
        "may_sleep": [str(tier) for tier in facts.config.may_sleep],
        "packages": {n: package_version(n) for n in ("ray", "torch", "transformers")},
    }


def build(args: dict[str, Any]) -> Application:
    """Serve's application builder: our config as arguments, or `config` with a file's path."""
    try:
        return compose(check(_config_of(args)))
    except (ConfigError, ModelError, FetchError) as error:
        # `serve status` shows all that an error came from; ours says what to do by itself.
        raise type(error)(str(error)) from None


def _config_of(args: dict[str, Any]) -> Config:
    if "config" not in args:
        return parse(args, "arguments")
    overrides = [f"{key}={value}" for key, value in args.items() if key != "config"]
    return load(Path(args["config"]), overrides)[0]
