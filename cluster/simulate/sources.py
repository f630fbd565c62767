"""Setups from what a user has: a fleet file, or a calibration and the bench to be met."""

from __future__ import annotations

import math
from dataclasses import replace

from cluster.advice.calibration import Calibration
from cluster.advice.fleet import Fleet, FleetSource, PoolFigures
from cluster.errors import ConfigError
from cluster.simulate.figures import PoolSize, SimulateFigures
from cluster.simulate.luck import Drawn, Replayed
from cluster.simulate.setup import PoolSetup, Setup, Traffic
from cluster.simulate.times import MeasuredTimes, RooflineTimes
from policies.autoscale import Autoscaler, Coupling, ScaleSettings
from policies.costs import cheapest
from policies.vocabulary import Plan, PlanKind, Tier

OFF = Plan(PlanKind.OFF)


def of_fleet(fleet: Fleet) -> Setup:
    """Sessions under the controller. Raises ConfigError that names the key."""
    figures = fleet.simulate
    if figures is None:
        raise ConfigError(
            "simulate: this fleet file has no such section; config/fleets/hundred.yaml shows one"
        )
    source = fleet.source()
    proposing = [tier for tier in source.tiers if tier is not Tier.FULL]
    traffic = figures.traffic
    return Setup(
        large=_pool(source, [Tier.FULL], fleet.pools.large, figures.large, "large"),
        cheap=_pool(source, proposing, fleet.pools.cheap, figures.cheap, "cheap"),
        traffic=Traffic(
            traffic.requests,
            traffic.per_second,
            traffic.prompt_tokens,
            traffic.output_tokens,
            traffic.spread,
            traffic.swing,
            traffic.period_s,
        ),
        luck=Drawn(source.rates, max(fleet.max_gamma, fleet.max_block)),
        hop_s=source.hop_s,
        plan=None,
        max_gamma=fleet.max_gamma,
        max_block=fleet.max_block,
        decode_tokens=source.decode_tokens,
        scaler=_scaler(figures),
        start_s=figures.autoscale.start_s if figures.autoscale else 0.0,
        seed=figures.seed,
    )


def plain(setup: Setup) -> Setup:
    """The large pool alone."""
    return replace(setup, plan=OFF, cheap=None)


def two_tier(setup: Setup, source: FleetSource) -> Setup:
    """Always a draft before full, of the length that the cost model finds best with half of the
    slots in use."""
    load = max(setup.large.slots // 2, 1)
    model = source.model_at(load)
    plan, _ = cheapest(model, PlanKind.TWO_TIER, load, setup.max_gamma, setup.max_block)
    return replace(setup, plan=plan)


def of_calibration(found: Calibration) -> Setup:
    """The calibrated workers, one a pool, or one of all tiers where its config has them so. Who
    asks, and how much, is not its business. Raises ConfigError for a calibration without
    answers."""
    if not any(each.length for each in found.answers):
        raise ConfigError("calibration: it has no answers; run `calibrate` again")
    times, served = MeasuredTimes(found), found.served
    tiers = [tier for tier in (Tier.DRAFT, Tier.SLIM) if tier in found.model_at(1).times]

    def pool(hosted: list[Tier]) -> PoolSetup:
        return PoolSetup(
            tiers=tuple(hosted),
            models=times.tiers & set(hosted),
            times=times,
            workers=1,
            cards=0,
            slots=served.slots,
            token_budget=served.token_budget,
            capacity=math.inf,
            price_per_hour=None,
        )

    apart = [] if served.one_worker else tiers
    return Setup(
        large=pool([*(tiers if served.one_worker else []), Tier.FULL]),
        cheap=pool(apart) if apart else None,
        traffic=Traffic(1, 1.0, found.prompt_tokens, found.settings.max_tokens),
        luck=Replayed([each for each in found.answers if each.length]),
        hop_s=found.hop.seconds,
        plan=None,
        max_gamma=served.max_gamma,
        max_block=served.max_block,
        decode_tokens=served.decode_tokens,
    )


def _pool(
    source: FleetSource, tiers: list[Tier], card: PoolFigures, size: PoolSize, name: str
) -> PoolSetup:
    sizes = [source.tiers[tier][1] for tier in tiers]
    memory = card.memory_bytes()
    if memory is None:
        raise ConfigError(f"pools.{name}.memory_gb: needed to simulate a card of your own")
    room = size.memory_frac * memory - sum(each.weight_bytes for each in sizes)
    token = sum(each.kv_bytes_per_token for each in sizes)
    if room <= token * source.context_tokens:
        raise ConfigError(f"pools.{name}: the weights leave no room for a session's context")
    return PoolSetup(
        tiers=tuple(tiers),
        models=frozenset(tiers),
        times=RooflineTimes(source.tiers),
        workers=size.workers,
        cards=card.cards,
        slots=size.slots,
        token_budget=size.token_budget,
        capacity=room / token if token else math.inf,
        price_per_hour=card.price_per_hour,
    )


def _scaler(figures: SimulateFigures) -> Autoscaler | None:
    scale = figures.autoscale
    if scale is None:
        return None

    def settings(size: PoolSize) -> ScaleSettings:
        low, high = size.bounds
        times = (scale.target_frac, scale.max_queue_s, scale.up_s, scale.down_s)
        return ScaleSettings(low, high, *times)

    coupling = Coupling(scale.max_ratio, scale.wake_frac)
    return Autoscaler(settings(figures.cheap), settings(figures.large), coupling)
