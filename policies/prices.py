"""From what the pools look like to what their tiers are under. Pure: the time is an argument."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from policies.pressure import PoolLoad, Pressure, PressureSettings, Price, price_of
from policies.vocabulary import Tier


@dataclass(frozen=True, slots=True)
class PoolLook:
    """A pool as it was found. `crowd`: sessions in a step of one of its workers, over those
    that share a worker of full."""

    tiers: frozenset[Tier]
    load: PoolLoad
    crowd: float = 1.0


class Prices:
    """The prices of a fleet's pools over time."""

    def __init__(self, settings: PressureSettings) -> None:
        self._settings = settings
        self._prices: dict[str, Price] = {}
        self.told: dict[str, float] = {}

    def follow(self, now_s: float, pools: Mapping[str, PoolLook]) -> dict[Tier, Pressure]:
        """Take a look in; what each tier is under from now on.

        Where several pools host a tier it costs what it costs in the cheapest. Pools that all
        host the same leave no choice: then no tier is dearer than another.
        """
        for name, look in pools.items():
            price = self._prices.setdefault(name, Price(self._settings))
            self.told[name] = price.follow(now_s, price_of(look.load, self._settings))
        for name in self.told.keys() - pools.keys():
            del self.told[name], self._prices[name]
        if len({look.tiers for look in pools.values()}) < 2:
            return {}
        pressure: dict[Tier, Pressure] = {}
        for name, look in pools.items():
            # Full's rows are the load's own; steps of the rounding do not move a plan.
            crowd = 1.0 if Tier.FULL in look.tiers else _rounded(look.crowd)
            for tier in look.tiers:
                if tier not in pressure or self.told[name] < pressure[tier].price:
                    pressure[tier] = Pressure(self.told[name], crowd)
        return pressure


def _rounded(crowd: float) -> float:
    """To half octaves."""
    return 2 ** (round(2 * math.log2(max(crowd, 0.01))) / 2)
