"""Serve's autoscaling policy of the application: recorded stats in, numbers of replicas out.

The law is `policies.autoscale`; here is only what stands between it and Serve. Serve pickles
`decide` into its controller, where our code need not be: by value, and the law with it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

from ray import cloudpickle
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from actors.usage import Demand, WorkerUsage
from cluster.config import POLICY_PATH, Config
from policies import autoscale as law
from policies.vocabulary import Tier

cloudpickle.register_pickle_by_value(law)

logger = logging.getLogger("ray.serve")

REPORT_S = 2.0
TICK_S = 1.0
"""Between two decisions; the law smooths by the decision."""
_LARGE, _CHEAP, _ROUTER = "large", "cheap", "router"

Contexts = Mapping[Any, AutoscalingContext]
Decisions = tuple[dict[Any, int], dict[Any, dict[str, Any]]]


def decide(contexts: Contexts) -> Decisions:
    """Serve's application-level policy: replicas and the state to keep, by deployment.

    A fault here would stop Serve's control loop for every application, so it is logged, and
    all stays as it is.
    """
    try:
        return _decide({_role(context): context for context in contexts.values()})
    except Exception:
        logger.exception("no decision about the number of workers")
        return {}, {name: context.policy_state for name, context in contexts.items()}


def hold(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """A pool's own policy, which Serve asks where the application has none: nothing changes."""
    state = dict(context.policy_state)
    if not state.get("told"):
        logger.error(
            "%s does not scale: its application in the Serve file lacks"
            " `autoscaling_policy: {policy_function: %s}`",
            context.deployment_name,
            POLICY_PATH,
        )
    return context.target_num_replicas, state | {"told": True}


def _decide(roles: Mapping[str, AutoscalingContext]) -> Decisions:
    large, cheap = roles.get(_LARGE), roles.get(_CHEAP)
    if large is None:  # not deployed yet
        return {}, {}
    now, memory = large.current_time or 0.0, large.policy_state
    scale: law.Scale = memory.get("scale") or law.Scale(_there(cheap), _there(large))
    decided_s: float = memory.get("decided_s", 0.0)
    seen = _seen(large, roles.get(_ROUTER))
    # Before a worker of full has reported there is nothing to go by.
    if seen.workers and now - decided_s >= TICK_S:
        scaler = law.Autoscaler(_settings(cheap), _settings(large), _coupling(large))
        scale = scaler.decide(scale, now, _seen(cheap, roles.get(_ROUTER)), seen)
        decided_s = now
    wanted = {large.deployment_id: scale.large.wanted}
    if cheap is not None:
        wanted[cheap.deployment_id] = scale.cheap.wanted
    return wanted, {large.deployment_id: {"scale": scale, "decided_s": decided_s}}


def _seen(pool: AutoscalingContext | None, router: AutoscalingContext | None) -> law.PoolStats:
    """What the pool's replicas have told, and the routers of it. Who has not reported is no
    worker yet; a worker whose device nobody measures is taken for busy."""
    told = [stats for stats in _latest(pool) if stats.get("ready")]
    name = "" if pool is None else _kwargs(pool)["pool"]
    routers = list(_latest(router))
    waiting = sum(stats.get(f"waiting/{name}", 0.0) for stats in routers)
    return law.PoolStats(
        workers=len(told),
        util_frac=fmean(stats.get("util_frac", 1.0) for stats in told) if told else 0.0,
        fill_frac=fmean(stats["fill_frac"] for stats in told) if told else 0.0,
        slots=max([int(stats["slots"]) for stats in told], default=1),
        waiting=round(waiting),
        queue_s=max([stats.get(f"queue_s/{name}", 0.0) for stats in routers], default=0.0),
    )


def _latest(context: AutoscalingContext | None) -> Iterator[dict[str, float]]:
    """The last value of every stat, replica by replica."""
    if context is None:
        return
    raw = context.raw_metrics or {}
    for replica in context.running_replicas:
        yield {
            name: series[replica][-1].value for name, series in raw.items() if series.get(replica)
        }


def _there(pool: AutoscalingContext | None) -> law.PoolScale:
    return law.PoolScale(0 if pool is None else pool.target_num_replicas)


def _kwargs(context: AutoscalingContext) -> dict[str, Any]:
    """What compose has told: `config` of a deployment is its AutoscalingConfig."""
    assert context.config is not None
    return context.config.policy.policy_kwargs


def _role(context: AutoscalingContext) -> str:
    return _kwargs(context)["role"]


def _settings(pool: AutoscalingContext | None) -> law.ScaleSettings:
    return law.ScaleSettings(0, 0) if pool is None else law.ScaleSettings(**_kwargs(pool)["scale"])


def _coupling(large: AutoscalingContext) -> law.Coupling:
    return law.Coupling(**_kwargs(large)["coupling"])


def pool_replicas(config: Config, name: str) -> dict[str, Any]:
    """Options of a pool's deployment that say how many replicas it has."""
    pool, scale = config.pools[name], config.pools[name].scale()
    if not config.scales:
        return {"num_replicas": pool.replicas}
    told = {
        "pool": name,
        "role": _LARGE if Tier.FULL in pool.tiers else _CHEAP,
        "scale": asdict(scale),
        "coupling": asdict(config.autoscale.settings()),
    }
    policy = AutoscalingPolicy(policy_function="cluster.scaling:hold", policy_kwargs=told)
    return {
        "autoscaling_config": _config(policy, scale.min_workers, scale.max_workers, pool.replicas)
    }


def router_replicas(config: Config) -> dict[str, Any]:
    """Likewise of the routers: always the same, but Serve collects stats of deployments that
    scale alone."""
    replicas = config.router.replicas
    if not config.scales:
        return {"num_replicas": replicas}
    policy = AutoscalingPolicy(policy_kwargs={"role": _ROUTER})
    return {"autoscaling_config": _config(policy, replicas, replicas, replicas)}


def _config(policy: AutoscalingPolicy, least: int, most: int, first: int) -> AutoscalingConfig:
    """Delays are the law's alone. `policy` is what Serve asks where the application has none;
    its arguments are what `decide` reads, for those of its own would not know the config."""
    with warnings.catch_warnings():
        # Ray 2.60 names no other way to have stats more often than every ten seconds.
        warnings.simplefilter("ignore", DeprecationWarning)
        return AutoscalingConfig(
            policy=policy,
            min_replicas=least,
            max_replicas=most,
            initial_replicas=first,
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            metrics_interval_s=REPORT_S,
            look_back_period_s=5 * REPORT_S,
        )


def pool_stats(usage: WorkerUsage | None) -> dict[str, float]:
    """What a pool replica records of its worker; None while it is not ready."""
    if usage is None:
        return {"ready": 0.0}
    known = {} if usage.util_frac is None else {"util_frac": usage.util_frac}
    return {"ready": 1.0, "fill_frac": usage.fill_frac, "slots": float(usage.slots), **known}


def router_stats(demand: Mapping[str, Demand]) -> dict[str, float]:
    """What a router records, by pool."""
    stats: dict[str, float] = {}
    for name, waits in demand.items():
        stats |= {f"waiting/{name}": float(waits.waiting), f"queue_s/{name}": waits.queue_s}
    return stats
