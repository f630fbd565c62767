"""The simulated router: which session waits where, what each step carries, what replies mean.

The decisions are those of the real router: the same session machine, lanes and batching, the
same planner and balance. It knows the clock and no arrival.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.balancer import Balancer
from actors.lanes import Waiter
from actors.messages import StepReply, StepRequest
from actors.planner import Planner
from cluster.simulate.clock import Clock
from cluster.simulate.lane import SimLane
from cluster.simulate.setup import Setup
from policies.balance import BalanceSettings, waits
from policies.session import Session
from policies.transitions import State
from policies.vocabulary import PlanKind, Tier
from policies.work import WorkKind


@dataclass(slots=True, eq=False)
class Asked:
    """A request from its arrival on. `cheap` and `large`: the lanes that it calls home. `gaps_s`:
    seconds between the pieces of its stream."""

    session: Session
    arrived_s: float
    first_s: float | None = None
    cheap: SimLane | None = None
    large: SimLane | None = None
    patience_s: float = math.inf
    last_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)

    def heard(self, now: float) -> None:
        """A piece of the answer is there."""
        if self.first_s is None:
            self.first_s = now
        else:
            self.gaps_s.append(now - self.last_s)
        self.last_s = now


class Desk:
    """`done` is called with every request that is answered."""

    def __init__(
        self,
        setup: Setup,
        clock: Clock,
        planner: Planner,
        rng: random.Random,
        done: Callable[[Asked], None],
    ) -> None:
        self._setup, self._clock, self._planner = setup, clock, planner
        self._done = done
        self._balancer = Balancer(BalanceSettings(), rng)
        self.queue: list[Asked] = []
        self.running: dict[str, Asked] = {}
        self.large: list[SimLane] = []
        self.cheap: list[SimLane] = []
        self.tokens_by: Counter[PlanKind] = Counter()
        self.skipped = self.moved = 0
        self._next = 0
        self._dirty: dict[SimLane, None] = {}
        proposing = setup.cheap or setup.large
        self._models = proposing.models - {Tier.FULL}
        self._inside = frozenset(setup.large.tiers) - {Tier.FULL}
        self._proposing = self._inside | frozenset(setup.cheap.tiers if setup.cheap else ())

    @property
    def waiting(self) -> int:
        """Requests that are not admitted yet."""
        return len(self.queue) - self._next

    @property
    def load(self) -> int:
        """Sessions of a full worker, on average."""
        return max(round(len(self.running) / max(len(self.large), 1)), 1)

    @property
    def tokens(self) -> int:
        """Committed so far."""
        return self.tokens_by.total()

    def arrive(self, session: Session) -> None:
        """A request comes in."""
        self.queue.append(Asked(session, self._clock.now))
        self.advance()

    def advance(self) -> None:
        """Admit who waits, then send every worker with something new its next steps."""
        room = sum(seat.pool.slots for seat in self.large)
        while self.waiting and len(self.running) < room:
            self._admit(self.queue[self._next])
            self._next += 1
        if self._next > 1024 and self._next > len(self.queue) // 2:
            del self.queue[: self._next]
            self._next = 0
        while self._dirty:
            seat = next(iter(self._dirty))
            del self._dirty[seat]
            self._feed(seat)

    def drain(self, seat: SimLane) -> None:
        """Take nobody new there; who is there moves on at its next step, by its token ids."""
        seat.draining = True
        (self.cheap if seat in self.cheap else self.large).remove(seat)
        for session_id in list(seat.lane.waiting):
            del seat.lane.waiting[session_id]
            asked = self.running[session_id]
            self._left_proposing(asked, seat)
            self._place(asked)

    def _admit(self, asked: Asked) -> None:
        self.running[asked.session.session_id] = asked
        self._replan(asked)
        self._place(asked)

    def _replan(self, asked: Asked) -> None:
        session = asked.session
        if session.spec.auto:
            proposing = self._proposing if self.cheap else self._inside
            session.plan, session.why = self._planner.plan(
                session, self.load, proposing | {Tier.FULL}, self._models
            )
            asked.patience_s = self._planner.patience_s

    def _place(self, asked: Asked) -> None:
        session = asked.session
        if self._inside:
            seat = asked.large
            session.share(seat is not None and session.may_share(seat.pool.tiers))
        if session.wants is WorkKind.PROPOSE:
            asked.cheap = self._home(asked, asked.cheap, self.cheap)
            if asked.cheap is None or not waits(asked.cheap.lane.queue_s, asked.patience_s):
                session.skip_proposing()
                self.skipped += 1
        if session.wants is WorkKind.PROPOSE:
            seat = asked.cheap
            if asked.large is not None and seat is not None:
                asked.large.proposing[seat] = asked.large.proposing.get(seat, 0) + 1
        else:
            seat = asked.large = self._home(asked, asked.large, self.large)
        assert seat is not None, "a fleet without a full worker"
        seat.lane.waiting[session.session_id] = Waiter(session, self._clock.now)
        self._dirty[seat] = None

    def _home(self, asked: Asked, home: SimLane | None, seats: list[SimLane]) -> SimLane | None:
        """Where the session's next call goes: its home, unless that drains or a move pays."""
        session = asked.session
        tiers = sorted(session.plan.kind.tiers) if seats is self.cheap else [Tier.FULL]

        def recompute_s(seat: SimLane) -> float:
            models = [tier for tier in tiers if tier in seat.pool.models]
            return seat.worker.prefill_s(models, len(session.tokens))

        chosen = self._balancer.choose(home, seats, session.remaining, recompute_s)
        if chosen is not home:
            if home is not None:
                self._leave(asked, home)
                self.moved += chosen is not None
            if chosen is not None:
                chosen.lane.homes.add(session.session_id)
        return chosen

    def _leave(self, asked: Asked, seat: SimLane) -> None:
        session = asked.session
        seat.lane.homes.discard(session.session_id)
        seat.lane.releases.append(session.session_id)
        session.on_lost(seat.name)

    def _feed(self, seat: SimLane) -> None:
        now, lane = self._clock.now, seat.lane
        if (until := seat.holds(now)) is not None:
            self._clock.at(until, self._wake, seat)
            return
        while lane.has_room and (step := lane.next_step(now)) is not None:
            seat.hold_until_s = None
            self._send(seat, *step)

    def _wake(self, seat: SimLane) -> None:
        self._dirty[seat] = None
        self.advance()

    def _send(self, seat: SimLane, request: StepRequest, sessions: list[Session]) -> None:
        now, worker = self._clock.now, seat.worker
        alone = not seat.lane.in_flight
        seat.lane.in_flight += 1
        reply = worker.step(request)
        begin = max(now + self._setup.hop_s / 2, worker.free_at)
        worker.free_at = begin + reply.busy_s
        back = worker.free_at + self._setup.hop_s / 2
        self._clock.at(back, self._answered, seat, reply, sessions, now, alone)

    def _answered(
        self, seat: SimLane, reply: StepReply, sessions: list[Session], sent_s: float, alone: bool
    ) -> None:
        lane, wall_s = seat.lane, self._clock.now - sent_s
        lane.in_flight -= 1
        lane.measured(wall_s, reply.busy_s, len(sessions), alone)
        self._planner.saw_step(reply)
        if sessions and alone:
            # As in the router: where full is, the others' part of a round takes no call.
            hopped = (Tier.FULL,) if Tier.FULL in seat.pool.tiers else seat.pool.tiers
            self._planner.saw_hop(hopped, max(wall_s - reply.busy_s, 0.0))
        for session, answer in zip(sessions, reply.replies, strict=True):
            asked = self.running[session.session_id]
            self._left_proposing(asked, seat)
            if session.ends_round:
                self._replan(asked)
            commit = session.on_reply(seat.name, answer)
            self._planner.heard(session.take_verdicts())
            if commit is not None:
                self.tokens_by[commit.plan.kind] += len(commit.tokens)
                asked.heard(self._clock.now)
            if session.state is State.DONE:
                self._finish(asked)
            else:
                self._place(asked)
        self._dirty[seat] = None
        self.advance()

    def _left_proposing(self, asked: Asked, seat: SimLane) -> None:
        if seat is asked.cheap and asked.large is not None:
            left = asked.large.proposing.get(seat, 0) - 1
            if left > 0:
                asked.large.proposing[seat] = left
            else:
                asked.large.proposing.pop(seat, None)
            self._dirty[asked.large] = None

    def _finish(self, asked: Asked) -> None:
        del self.running[asked.session.session_id]
        for seat in (asked.cheap, asked.large):
            if seat is not None:
                seat.lane.homes.discard(asked.session.session_id)
                if seat.name in asked.session.workers:
                    seat.lane.releases.append(asked.session.session_id)
        self._done(asked)
