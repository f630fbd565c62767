"""Which workers a session calls home: one that proposes for it, one that has full.

It knows lanes and sessions and sends nothing. Where a worker hosts both, both homes are there:
the prefix is computed once, and rounds take no hop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from statistics import fmean

from actors.balancer import Balancer
from actors.lanes import Lane, available_tiers, models_of
from actors.messages import Output
from actors.recorder import Recorder
from policies.session import Session
from policies.vocabulary import Counters, Tier
from policies.work import WorkKind

Recompute = Callable[[Collection[Tier], int], float]
"""Seconds to compute so many rows of a session on these tiers."""

FULL = frozenset({Tier.FULL})


@dataclass(slots=True, eq=False)
class Running:
    """A session, where its output goes, and the workers it calls home, by role.

    `place`: the lane that it waits in. `proposing`: its full worker and the
    other one that proposes for it just now. `failures` and `late`: steps in a row that failed,
    that were not answered in time; `shuns`: the worker of the last such step. `patience_s`: how
    long its next block may wait for a worker. `spare`: the block came from prompt lookup
    because the worker was busy. `recorder`: notes its steps, where the request is timed.
    `entered_s`, `started_s`: when it came and when it was admitted. `counted`: its counters as
    metrics have them.
    """

    session: Session
    index: int
    inbox: asyncio.Queue[Output]
    homes: dict[WorkKind, Lane] = field(default_factory=dict)
    place: Lane | None = None
    proposing: tuple[Lane, Lane] | None = None
    failures: int = 0
    late: int = 0
    shuns: Lane | None = None
    entered_s: float = 0.0
    started_s: float = 0.0
    counted: Counters = field(default_factory=Counters)
    patience_s: float = float("inf")
    spare: bool = False
    recorder: Recorder | None = None
    timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        """Nothing waits for it any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def proposes_at(self, lane: Lane) -> None:
        """It waits for its block there; its full worker may wait for it."""
        full = self.homes.get(WorkKind.VERIFY)
        if full is not None and full is not lane:
            self.proposing = full, lane
            full.proposing[lane] = full.proposing.get(lane, 0) + 1

    def proposes_no_more(self) -> None:
        """The block is there, or will not come from where it was asked for."""
        if self.proposing is None:
            return
        full, lane = self.proposing
        self.proposing = None
        full.proposing[lane] -= 1
        if not full.proposing[lane]:
            del full.proposing[lane]


class Homes:
    """All lanes of a router, and the choice among them. `moved`: sessions that left a worker
    for a better one, by pool."""

    def __init__(self, balancer: Balancer, recompute_s: Recompute, *, moves: bool) -> None:
        self._balancer = balancer
        self._recompute_s = recompute_s
        self._moves = moves
        self.lanes: dict[str, Lane] = {}
        self.moved: Counter[str] = Counter()
        self._hosting: dict[frozenset[Tier], list[Lane]] = {}
        self.tiers: frozenset[Tier] = frozenset()
        self.models: frozenset[Tier] = frozenset()

    def add(self, lane: Lane) -> None:
        """A worker came; until it is measured it is taken to be as quick as its mates."""
        mates = [at for at in self.lanes.values() if at.report.pool == lane.report.pool]
        if measured := [mate for mate in mates if mate.measures]:
            lane.step_s = fmean(mate.step_s for mate in measured)
            lane.hop_s = fmean(mate.hop_s for mate in measured)
        self.lanes[lane.worker_id] = lane
        self.changed()

    def has(self, lane: Lane) -> bool:
        """False once the lane was lost, also to a namesake."""
        return self.lanes.get(lane.worker_id) is lane

    def remove(self, lane: Lane) -> None:
        """A worker is gone."""
        del self.lanes[lane.worker_id]
        self.changed()

    def changed(self) -> None:
        """Lanes came, went or were told anew of themselves."""
        self._hosting.clear()
        lanes = [lane for lane in self.lanes.values() if not lane.draining]
        self.tiers, self.models = available_tiers(lanes), models_of(lanes)

    def hosting(self, tiers: frozenset[Tier]) -> list[Lane]:
        """The lanes whose worker has all of them."""
        if (found := self._hosting.get(tiers)) is None:
            found = [lane for lane in self.lanes.values() if tiers <= set(lane.tiers)]
            self._hosting[tiers] = found
        return found

    def staying(self, tiers: frozenset[Tier]) -> list[Lane]:
        """Those of them that do not drain."""
        return [lane for lane in self.hosting(tiers) if not lane.draining]

    def has_mate(self, lane: Lane) -> bool:
        """Whether another open worker could do all that this one does."""
        mates = self.hosting(frozenset(lane.tiers))
        return any(mate is not lane and not mate.closed for mate in mates)

    def load(self, newcomers: int = 0) -> int:
        """Sessions of a worker of full, on average, when so many more have come; 1 at least."""
        full = self.hosting(FULL)
        sessions = sum(len(lane.homes) for lane in full) + newcomers
        return max(round(sessions / max(len(full), 1)), 1)

    def num_slots(self) -> int:
        """Of the workers of full that stay."""
        return sum(lane.report.slots for lane in self.staying(FULL))

    def plays_rounds(self, running: Running) -> bool:
        """Whether the session's full worker hosts what proposes, too."""
        lane = running.homes.get(WorkKind.VERIFY)
        return lane is not None and running.session.may_share(lane.tiers)

    def find(self, running: Running) -> Lane | None:
        """The worker of the session's next call: a home of its, unless that is closed or a move
        pays; None without a worker that does such work."""
        session = running.session
        role, needed = _asks(session)
        home = running.homes.get(role)
        if home is not None and not needed <= set(home.tiers):
            home = None
        # Before any other, a worker that holds the session's prefix for its other role; where
        # full is, what proposes beside it goes wherever full goes.
        other = running.homes.get(_other(role))
        if other is not None and needed <= set(other.tiers):
            if role is WorkKind.PROPOSE and not other.closed:
                return self._settle(running, role, other)
            home = home or other
        if home is not None and not home.closed and (home.calm or not self._moves):
            return self._settle(running, role, home)
        open_lanes = [
            lane
            for lane in self.hosting(needed)
            if not lane.closed and (lane is not running.shuns or lane is home)
        ]
        chosen = self._balancer.choose(
            home, open_lanes, session.remaining, lambda lane: self._stake_s(session, needed)
        )
        if chosen is None:
            # A late worker is better than none.
            chosen = home or min(self.staying(needed), key=lambda at: at.late, default=None)
        elif home is not None and chosen is not home:
            self.moved[home.report.pool] += 1
        return None if chosen is None else self._settle(running, role, chosen)

    def _stake_s(self, session: Session, tiers: frozenset[Tier]) -> float:
        return self._recompute_s(tiers & self.models, len(session.tokens))

    def forget(self, running: Running) -> None:
        """The session is over: no lane knows it any more."""
        session = running.session
        running.proposes_no_more()
        if running.place is not None:
            running.place.waiting.pop(session.session_id, None)
        for lane in set(running.homes.values()):
            lane.homes.discard(session.session_id)
        for worker_id in session.workers:
            if (lane := self.lanes.get(worker_id)) is not None:
                lane.releases.append(session.session_id)

    def _settle(self, running: Running, role: WorkKind, lane: Lane) -> Lane:
        if (before := running.homes.get(role)) is not lane:
            running.homes[role] = lane
            lane.homes.add(running.session.session_id)
            if before is not None:
                self._vacate(running, before)
        return lane

    def leave(self, running: Running, lane: Lane) -> None:
        """The session lives there no more, in no role."""
        running.homes = {role: at for role, at in running.homes.items() if at is not lane}
        self._vacate(running, lane)

    def move_off(self, running: Running) -> None:
        """Leave workers that drain, but for the last that has full."""
        for lane in set(running.homes.values()):
            if lane.draining and (Tier.FULL not in lane.tiers or self.staying(FULL)):
                self.moved[lane.report.pool] += 1
                self.leave(running, lane)

    def _vacate(self, running: Running, lane: Lane) -> None:
        if lane in running.homes.values():
            return
        session = running.session
        lane.homes.discard(session.session_id)
        if lane.worker_id in session.workers:
            lane.releases.append(session.session_id)
        session.on_lost(lane.worker_id)


def _asks(session: Session) -> tuple[WorkKind, frozenset[Tier]]:
    """The role of the worker that its next call goes to, and the tiers that it must have."""
    kind, proposing = session.wants, session.plan.kind.tiers
    if kind is WorkKind.PROPOSE:
        return WorkKind.PROPOSE, proposing
    return WorkKind.VERIFY, FULL | proposing if kind is WorkKind.ROUNDS else FULL


def _other(role: WorkKind) -> WorkKind:
    return WorkKind.VERIFY if role is WorkKind.PROPOSE else WorkKind.PROPOSE
