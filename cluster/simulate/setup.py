"""What is simulated: workers, traffic, bounds, and the plan that sessions play.

Plain figures; where they come from (a fleet file, a calibration) is not known here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.simulate.luck import Luck
from cluster.simulate.times import Times
from policies.autoscale import Autoscaler
from policies.vocabulary import Plan, Tier


@dataclass(frozen=True, slots=True)
class PoolSetup:
    """A pool's workers, all alike. `workers` at the beginning; `models`: those of its `tiers`
    that run a model; `capacity`: tokens of context of one worker; `cards` of one."""

    tiers: tuple[Tier, ...]
    models: frozenset[Tier]
    times: Times
    workers: int
    cards: int
    slots: int
    token_budget: int
    capacity: float
    price_per_hour: float | None


@dataclass(frozen=True, slots=True)
class Traffic:
    """`per_s` requests a second on average, by a Poisson process whose rate swings by `swing`
    of itself with the period `period_s`; or, `closed`, so many sessions that each ask again as
    soon as they are answered. Lengths in tokens are lognormal with these means and the
    logarithm's deviation `spread`; 0 makes them all alike."""

    requests: int
    per_s: float
    prompt_tokens: float
    output_tokens: float
    spread: float = 0.0
    swing: float = 0.0
    period_s: float = 600.0
    closed: int | None = None

    def arrivals(self, rng: random.Random) -> Iterator[float]:
        """Seconds at which requests come (thinning); all at once where `closed`."""
        if self.closed is not None:
            yield from (0.0 for _ in range(self.requests))
            return
        now, most = 0.0, self.per_s * (1 + self.swing)
        for _ in range(self.requests):
            while True:
                now += rng.expovariate(most)
                rate = self.per_s * (1 + self.swing * math.sin(2 * math.pi * now / self.period_s))
                if rng.random() * most <= rate:
                    break
            yield now

    def lengths(self, rng: random.Random) -> tuple[int, int]:
        """Prompt and answer of one request."""
        return self._length(self.prompt_tokens, rng), self._length(self.output_tokens, rng)

    def _length(self, mean: float, rng: random.Random) -> int:
        if not self.spread:
            return max(round(mean), 1)
        found = rng.lognormvariate(math.log(mean) - self.spread**2 / 2, self.spread)
        return max(round(min(found, 16 * mean)), 1)


@dataclass(frozen=True, slots=True)
class Setup:
    """All of it. Without `cheap` sessions decode plainly, or in whole rounds where `large` hosts
    what proposes. `plan`: what every session plays, None leaves it to the controller;
    `max_gamma`, `max_block`, `decode_tokens` as the controller's.
    `hop_s`: of a call to a worker and back. `scaler`: None keeps the pools as they are;
    `start_s`: until a worker that was asked for is ready."""

    large: PoolSetup
    cheap: PoolSetup | None
    traffic: Traffic
    luck: Luck
    hop_s: float
    plan: Plan | None
    max_gamma: int
    max_block: int
    decode_tokens: int
    max_in_flight: int = 2
    scaler: Autoscaler | None = None
    start_s: float = 60.0
    seed: int = 0
