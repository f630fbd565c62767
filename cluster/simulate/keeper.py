"""Looks after a simulated fleet from time to time: pressure, sizes, and what is noted of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from actors.planner import Planner
from cluster.simulate.clock import Clock
from cluster.simulate.desk import Desk
from cluster.simulate.lane import SimLane, open_lane
from cluster.simulate.setup import PoolSetup, Setup
from cluster.simulate.worker import SimWorker
from policies.autoscale import Autoscaler, PoolScale, PoolStats, Scale
from policies.pressure import PoolLoad, PressureSettings
from policies.prices import PoolLook, Prices
from policies.vocabulary import PlanKind

TICK_S = 1.0
_SMOOTHING = 0.3


@dataclass(frozen=True, slots=True)
class Moment:
    """A look at the fleet. By pool name: ready workers, share of the time that they compute,
    the price of their seconds. `tokens_by`: committed so far by the kind of plan."""

    at_s: float
    running: int
    waiting: int
    workers: dict[str, int]
    util_frac: dict[str, float]
    price: dict[str, float]
    tokens_by: dict[PlanKind, int]


@dataclass(slots=True)
class Pool:
    """A pool's life. `workers`: all that it ever had; `paid_s`: of those that are gone."""

    name: str
    setup: PoolSetup
    seats: list[SimLane]
    starting: int = 0
    leaving: list[SimLane] = field(default_factory=list)
    workers: list[SimWorker] = field(default_factory=list)
    paid_s: float = 0.0
    util_frac: float = 0.0
    fill_frac: float = 0.0
    crowd: float = 1.0

    def spent_s(self, now: float) -> float:
        """Worker seconds paid for so far."""
        return self.paid_s + sum(now - seat.since_s for seat in (*self.seats, *self.leaving))

    def computed_s(self) -> float:
        """Worker seconds spent computing so far."""
        return sum(worker.busy_s for worker in self.workers)


class Keeper:
    """Of one simulation. `seats` of the pools are the desk's own lists."""

    def __init__(
        self, setup: Setup, clock: Clock, desk: Desk, planner: Planner, rng: random.Random
    ) -> None:
        self._setup, self._clock, self._desk, self._planner = setup, clock, desk, planner
        self._rng = rng
        self._named = 0
        self._prices = Prices(PressureSettings())
        self.large = Pool("large", setup.large, desk.large)
        self.pools = [self.large]
        if setup.cheap is not None:
            self.pools.append(Pool("cheap", setup.cheap, desk.cheap))
        for pool in self.pools:
            for _ in range(pool.setup.workers):
                self._open(pool, 0.0)
        cheap = setup.cheap.workers if setup.cheap else 0
        self._scale = Scale(PoolScale(cheap), PoolScale(setup.large.workers))
        self.moments: list[Moment] = []

    def tick(self) -> None:
        """One look; asks for the next."""
        for pool in self.pools:
            self._look(pool)
        if self._setup.plan is None:
            self._press()
        if self._setup.scaler is not None:
            self._resize(self._setup.scaler)
        for pool in self.pools:
            for seat in [each for each in pool.leaving if _empty(each)]:
                self._close(pool, seat)
        self._note()
        self._desk.advance()
        self._clock.at(self._clock.now + TICK_S, self.tick)

    def _look(self, pool: Pool) -> None:
        """Utilisation since the last look."""
        busy = items = 0.0
        for seat in pool.seats:
            worker = seat.worker
            share = min((worker.busy_s - seat.busy_before_s) / TICK_S, 1.0)
            known = seat.util_frac if seat.util_frac is not None else share
            seat.util_frac = known + _SMOOTHING * (share - known)
            busy += worker.busy_s - seat.busy_before_s
            items += worker.item_s - seat.item_before_s
            seat.busy_before_s, seat.item_before_s = worker.busy_s, worker.item_s
        pool.util_frac = fmean([s.util_frac or 0.0 for s in pool.seats]) if pool.seats else 0.0
        if busy > 0:
            pool.fill_frac = items / busy / pool.setup.slots
            pool.crowd = items / busy / self._desk.load

    def _press(self) -> None:
        looks = {
            pool.name: PoolLook(frozenset(pool.setup.tiers), _pool_load(pool), pool.crowd)
            for pool in self.pools
        }
        self._planner.under(self._prices.follow(self._clock.now, looks))

    def _resize(self, scaler: Autoscaler) -> None:
        stats = {pool.name: self._stats(pool) for pool in self.pools}
        cheap = stats.get("cheap", PoolStats(0, 0.0, 0.0, slots=1))
        self._scale = scaler.decide(self._scale, self._clock.now, cheap, stats["large"])
        for pool in self.pools:
            wanted = self._scale.large if pool is self.large else self._scale.cheap
            there = len(pool.seats) + pool.starting
            for _ in range(wanted.wanted - there):
                pool.starting += 1
                asked_s = self._clock.now
                self._clock.at(asked_s + self._setup.start_s, self._ready, pool, asked_s)
            # What is still starting serves nobody: a last full worker stays meanwhile.
            spare = len(pool.seats) - (pool is self.large)
            for _ in range(min(there - wanted.wanted, spare)):
                seat = min(pool.seats, key=lambda each: len(each.lane.homes))
                self._desk.drain(seat)
                pool.leaving.append(seat)

    def _stats(self, pool: Pool) -> PoolStats:
        slots = pool.setup.slots
        behind = sum(max(len(seat.lane.waiting) - slots, 0) for seat in pool.seats)
        return PoolStats(
            workers=len(pool.seats),
            util_frac=pool.util_frac,
            fill_frac=self._use(pool),
            slots=slots,
            waiting=self._desk.waiting if pool is self.large else behind,
            queue_s=_pool_load(pool).queue_s,
        )

    def _use(self, pool: Pool) -> float:
        """Share of a step's slots in use; of full those of its sessions, which come back."""
        if pool is self.large:
            return self._desk.load / pool.setup.slots
        return pool.fill_frac

    def _open(self, pool: Pool, since_s: float) -> None:
        self._named += 1
        setup = pool.setup
        rng = random.Random(self._rng.getrandbits(64))
        worker = SimWorker(setup.models, setup.times, self._setup.luck, setup.capacity, rng)
        pool.workers.append(worker)
        name = f"{pool.name}-{self._named}"
        pool.seats.append(
            open_lane(
                name,
                setup,
                worker,
                since_s,
                self._setup.max_in_flight,
                self._setup.decode_tokens,
            )
        )

    def _ready(self, pool: Pool, asked_s: float) -> None:
        pool.starting -= 1
        self._open(pool, asked_s)
        self._desk.advance()

    def _close(self, pool: Pool, seat: SimLane) -> None:
        pool.leaving.remove(seat)
        pool.paid_s += self._clock.now - seat.since_s

    def _note(self) -> None:
        self.moments.append(
            Moment(
                at_s=self._clock.now,
                running=len(self._desk.running),
                waiting=self._desk.waiting,
                workers={pool.name: len(pool.seats) for pool in self.pools},
                util_frac={pool.name: pool.util_frac for pool in self.pools},
                price={pool.name: self._prices.told.get(pool.name, 1.0) for pool in self.pools},
                tokens_by=dict(Counter(self._desk.tokens_by)),
            )
        )


def _empty(seat: SimLane) -> bool:
    return not (seat.lane.homes or seat.lane.waiting or seat.lane.in_flight)


def _pool_load(pool: Pool) -> PoolLoad:
    seats: Sequence[SimLane] = [seat for seat in pool.seats if seat.lane.homes]
    if not seats:
        return PoolLoad(pool.util_frac, 0.0, 0.0)
    return PoolLoad(
        util_frac=pool.util_frac,
        queue_s=fmean(seat.lane.wait_s for seat in seats),
        step_s=fmean(seat.lane.step_s for seat in seats),
        kv_frac=fmean(seat.worker.memory.used_frac for seat in seats),
    )
