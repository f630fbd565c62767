"""A worker in the simulated router's view: the real lane, and what balance asks of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from actors.lanes import Lane
from actors.messages import WorkerReport
from cluster.simulate.setup import PoolSetup
from cluster.simulate.worker import SimWorker
from policies.balance import WorkerLoad
from policies.batching import hold_s


@dataclass(slots=True, eq=False)
class SimLane:
    """`proposing`: by cheap lane, how many of this full worker's sessions propose there just
    now. `draining`: takes nobody new. `busy_before_s` and `item_before_s` are the worker's
    at the last look."""

    name: str
    pool: PoolSetup
    worker: SimWorker
    lane: Lane
    since_s: float
    proposing: dict[SimLane, int] = field(default_factory=dict)
    hold_until_s: float | None = None
    draining: bool = False
    util_frac: float | None = None
    busy_before_s: float = 0.0
    item_before_s: float = 0.0

    @property
    def closed(self) -> bool:
        """See Seat."""
        return self.draining

    @property
    def calm(self) -> bool:
        """See Seat."""
        return self.lane.calm

    def load(self) -> WorkerLoad:
        """As balance sees it."""
        memory = self.worker.memory
        return replace(self.lane.load(), util_frac=self.util_frac, kv_frac=memory.used_frac)

    def holds(self, now: float) -> float | None:
        """Until when to leave the waiting sessions, since others are about to come back; None
        to go now. As `actors.lanes.Lane.holds`, with a clock for a timer."""
        lane = self.lane
        if not lane.waiting or lane.in_flight or not self.proposing:
            self.hold_until_s = None
            return None
        if self.hold_until_s is None:
            coming_s = max(place.lane.step_s + place.lane.hop_s for place in self.proposing)
            expected = sum(self.proposing.values())
            wait_s = hold_s(len(lane.waiting), expected, coming_s, lane.step_s)
            if wait_s == 0.0:
                return None
            self.hold_until_s = now + wait_s
        return self.hold_until_s if self.hold_until_s > now else None


def open_lane(
    name: str, pool: PoolSetup, worker: SimWorker, now: float, max_in_flight: int, burst: int
) -> SimLane:
    """A worker that is ready from now on."""
    report = WorkerReport(
        worker_id=name,
        pool="simulated",
        tiers=pool.tiers,
        device="simulated",
        threads=0,
        pid=0,
        slots=pool.slots,
        slot_tokens=0,
        token_budget=pool.token_budget,
        row_invariant=True,
        sessions=0,
        weight_bytes=0,
        engines={},
    )
    lane = Lane(name, worker, report, max_in_flight, burst)
    return SimLane(name, pool, worker, lane, since_s=now)
