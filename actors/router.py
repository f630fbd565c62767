"""The router: takes requests in, batches their sessions' work, and calls the workers.

It knows sessions by their state machine and workers by their lane; no text, no model, no Ray
(calls and membership are handed in). Every method runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from actors.auditor import Auditor
from actors.lanes import Lane, Waiter, available_tiers, least_loaded, models_of
from actors.lookup import Lookup
from actors.messages import GenerateRequest, Membership, Refusal, StepReply, StepRequest
from actors.planner import Planner
from actors.pool import WorkerGone
from policies.session import Session
from policies.transitions import State
from policies.vocabulary import Commit, Tier
from policies.work import WorkKind

logger = logging.getLogger("ray.serve")

Call = Callable[[Any, StepRequest], Awaitable[StepReply]]
"""Sends a step to a worker's handle. Raises WorkerGone when the worker is dead."""

Output = tuple[int, Commit] | Refusal


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Bounds of one router. `max_running` sessions are served at once, `max_queued` more wait.

    A session without a full worker waits `worker_wait_s`; a step is given up after
    `step_timeout_s`; `decode_tokens`: tokens that plain decoding asks for in one call;
    `lookup`: drafting without a worker.
    """

    max_running: int = 16
    max_queued: int = 64
    max_in_flight: int = 2
    decode_tokens: int = 4
    worker_wait_s: float = 60.0
    step_timeout_s: float = 300.0
    max_failures: int = 3
    lookup: Lookup | None = None


@dataclass(slots=True, eq=False)
class _Running:
    """A session, where its output goes, and the workers it calls home."""

    session: Session
    index: int
    inbox: asyncio.Queue[Output]
    homes: dict[WorkKind, str] = field(default_factory=dict)
    failures: int = 0
    started_s: float = 0.0


class Router:
    """One router replica. `auditor` watches over the sessions of lossy plans, `planner` chooses
    for those that leave the plan to it."""

    def __init__(
        self,
        settings: RouterSettings,
        call: Call,
        auditor: Auditor,
        planner: Planner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._auditor = auditor
        self._planner = planner
        self._call = call
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._queue: deque[_Running] = deque()
        self._running: dict[str, _Running] = {}
        self._homeless: dict[str, asyncio.TimerHandle] = {}
        self._steps: set[asyncio.Task[None]] = set()
        self._kicked = False
        self._service_s = 1.0
        # Steps belong to no request: Ray cancels a cancelled task's calls with it, and knows
        # them by the context that they were made in.
        self._context = contextvars.copy_context()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[Output], None]:
        """Commits of all sessions of the request, with the session's index, in batches.

        Ends when all are finished, or with a Refusal. Closing it cancels what is left.
        """
        if refusal := self._refusal(len(request.sessions)):
            yield [refusal]
            return
        inbox: asyncio.Queue[Output] = asyncio.Queue()
        share = self._auditor.settings.audit.sample_prob
        entered = [_Running(Session(s, share), i, inbox) for i, s in enumerate(request.sessions)]
        self._queue.extend(entered)
        self._kick()
        try:
            unfinished = len(entered)
            while unfinished:
                outputs = [await inbox.get()]
                while not inbox.empty():
                    outputs.append(inbox.get_nowait())
                unfinished -= sum(
                    isinstance(o, Refusal) or o[1].finish is not None for o in outputs
                )
                if any(isinstance(o, Refusal) for o in outputs):
                    unfinished = 0
                yield outputs
        finally:
            for running in entered:
                self._leave(running)
            self._kick()

    def _refusal(self, num_sessions: int) -> Refusal | None:
        waiting = len(self._queue) + num_sessions
        room = max(self._settings.max_running - len(self._running), 0)
        if waiting - room <= self._settings.max_queued:
            return None
        wait_s = max(
            1.0, math.ceil(len(self._queue) * self._service_s / self._settings.max_running)
        )
        return Refusal("overloaded", "the queue is full; try again later", wait_s)

    def _leave(self, running: _Running) -> None:
        """Take the session out everywhere; once is enough, twice does no harm."""
        session = running.session
        session.cancel()
        self._auditor.left(session)
        if running in self._queue:
            self._queue.remove(running)
        if self._running.pop(session.session_id, None) is None:
            return
        self._service_s += 0.1 * (self._clock() - running.started_s - self._service_s)
        if (timer := self._homeless.pop(session.session_id, None)) is not None:
            timer.cancel()
        for lane in self._lanes.values():
            lane.waiting.pop(session.session_id, None)
            lane.homes.discard(session.session_id)
            if lane.worker_id in session.workers:
                lane.releases.append(session.session_id)

    def set_members(self, membership: Membership) -> None:
        """Take in who is there; sessions of workers that left move on."""
        present = {entry.report.worker_id: entry for entry in membership.workers}
        for lane in list(self._lanes.values()):
            entry = present.get(lane.worker_id)
            if entry is None or entry.handle != lane.handle:
                self._lose(lane)
        for worker_id, entry in present.items():
            if worker_id in self._lanes:
                self._lanes[worker_id].report = entry.report
            else:
                settings = self._settings
                self._lanes[worker_id] = Lane(
                    worker_id,
                    entry.handle,
                    entry.report,
                    settings.max_in_flight,
                    settings.decode_tokens,
                )
        for session_id in list(self._homeless):
            self._place(self._running[session_id])
        self._kick()

    def _is_current(self, lane: Lane) -> bool:
        """False once the lane was lost: its sessions moved on, what it still answers is stale."""
        return self._lanes.get(lane.worker_id) is lane

    def _lose(self, lane: Lane) -> None:
        if not self._is_current(lane):
            return
        del self._lanes[lane.worker_id]
        lane.end_hold()
        for running in self._running.values():
            session = running.session
            waits_here = session.session_id in lane.waiting
            running.homes = {k: w for k, w in running.homes.items() if w != lane.worker_id}
            was_busy = session.wants is None
            session.on_lost(lane.worker_id)
            if waits_here or (was_busy and session.wants is not None):
                self._place(running)

    def _kick(self) -> None:
        """Schedule one pass of `_advance`; what happens until then shares its steps."""
        if not self._kicked:
            self._kicked = True
            asyncio.get_running_loop().call_soon(self._advance, context=self._context)

    def _advance(self) -> None:
        """Admit who waits, then send every worker with room its next step."""
        self._kicked = False
        while self._queue and len(self._running) < self._settings.max_running:
            self._admit(self._queue.popleft())
        for lane in list(self._lanes.values()):
            if lane.holds(self._expected(lane), self._kick):
                continue
            while lane.has_room and (step := lane.next_step(self._clock())) is not None:
                lane.in_flight += 1
                self._start(self._step(lane, *step, alone=lane.in_flight == 1))
        self._audit()

    def _start(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(step)
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)

    def _audit(self) -> None:
        """Background looks, where a full worker has nothing else to do."""
        for lane in list(self._lanes.values()):
            if Tier.FULL not in lane.tiers or lane.in_flight or lane.waiting:
                continue
            limits = lane.report.token_budget, lane.report.slots
            looks = self._auditor.next_step(lane.worker_id, *limits)
            if looks is not None:
                lane.in_flight += 1
                self._start(self._look(lane, *looks))

    def _expected(self, lane: Lane) -> list[Lane]:
        """Where sessions of this full worker are that propose at another worker just now."""
        proposing = (State.WAIT_PROPOSE, State.BUSY_PROPOSE)
        places = [
            self._lanes.get(running.homes.get(WorkKind.PROPOSE, ""))
            for running in self._running.values()
            if running.homes.get(WorkKind.VERIFY) == lane.worker_id
            and running.session.state in proposing
        ]
        return [place for place in places if place is not None and place is not lane]

    def _admit(self, running: _Running) -> None:
        running.started_s = self._clock()
        self._running[running.session.session_id] = running
        self._replan(running.session, len(self._running))
        self._place(running)

    def _replan(self, session: Session, load: int) -> None:
        """Give the session the plan of its next round."""
        if session.spec.auto:
            lanes = list(self._lanes.values())
            tiers = available_tiers(lanes) | ({Tier.DRAFT} if self._settings.lookup else set())
            session.plan, session.why = self._planner.plan(session, load, tiers, models_of(lanes))
        else:
            session.plan = self._auditor.plan(session)

    def _place(self, running: _Running) -> None:
        """Put the session into the lane of a worker that does what it wants next.

        Without one it is homeless, for at most `worker_wait_s` since it became so.
        """
        session, here = running.session, self._settings.lookup
        if here is not None and here.serves(session):
            self._planner.saw_draft(here.propose(session))
            self._planner.heard(session)
        session.share(self._plays_rounds(running))
        if session.wants is WorkKind.PROPOSE and self._home(running) is None:
            session.skip_proposing()
        if (lane := self._home(running)) is not None:
            if (timer := self._homeless.pop(session.session_id, None)) is not None:
                timer.cancel()
            alone = running.failures > 0
            lane.waiting[session.session_id] = Waiter(session, self._clock(), alone)
        elif session.session_id not in self._homeless:
            self._homeless[session.session_id] = asyncio.get_running_loop().call_later(
                self._settings.worker_wait_s, self._give_up, running
            )

    def _plays_rounds(self, running: _Running) -> bool:
        """Whether the session's full worker hosts what proposes, too."""
        lane = self._lanes.get(running.homes.get(WorkKind.VERIFY, ""))
        return lane is not None and running.session.may_share(lane.tiers)

    def _home(self, running: _Running) -> Lane | None:
        """The session's worker for its kind of work: the one that knows it, or the idlest."""
        kind = running.session.wants
        role = WorkKind.PROPOSE if kind is WorkKind.PROPOSE else WorkKind.VERIFY
        proposes = role is WorkKind.PROPOSE
        needed = running.session.plan.kind.tiers if proposes else frozenset({Tier.FULL})
        # Before any other, a worker that holds the session's prefix for its other role.
        for name in (running.homes.get(role), *running.homes.values()):
            known = self._lanes.get(name or "")
            if known is not None and needed <= set(known.tiers):
                running.homes[role] = known.worker_id
                return known
        lane = least_loaded(list(self._lanes.values()), lambda at: needed <= set(at.tiers))
        if lane is not None:
            running.homes[role] = lane.worker_id
            lane.homes.add(running.session.session_id)
        return lane

    def _give_up(self, running: _Running) -> None:
        wait_s = self._settings.worker_wait_s
        self._refuse(running, "unavailable", f"no worker with the full model within {wait_s:g} s")
        self._kick()

    def _refuse(self, running: _Running, kind: Any, message: str) -> None:
        running.inbox.put_nowait(Refusal(kind, message))
        self._leave(running)

    def _refuse_all(self, sessions: list[Session]) -> None:
        for session in sessions:
            if (running := self._running.get(session.session_id)) is not None:
                self._refuse(running, "internal", "the router failed on a step")

    async def _step(
        self, lane: Lane, request: StepRequest, sessions: list[Session], *, alone: bool
    ) -> None:
        """One call to a worker, sent `alone` or behind another, and what its reply means for
        the sessions."""
        begin = self._clock()
        reply = await self._answer(lane, request)
        if reply is not None:
            wall_s = self._clock() - begin
            lane.measured(wall_s, reply.busy_s, len(request.items), alone)
            self._planner.saw_step(reply)
            if request.items and alone:
                hop_s = max(wall_s - reply.busy_s, 0.0)
                hopped = set(lane.tiers) - ({Tier.DRAFT} if self._settings.lookup else set())
                if Tier.FULL in hopped:
                    # Here the others' part of a round comes in the call that asks full.
                    hopped = {Tier.FULL}
                self._planner.saw_hop(hopped, hop_s)
            try:
                self._take_in(lane, reply, sessions)
            except Exception:  # ours or the worker's fault: nobody may wait for ever
                logger.exception("the reply of worker %s cannot be taken in", lane.worker_id)
                self._refuse_all(sessions)
        elif self._is_current(lane):
            self._failed(lane, sessions)
        self._kick()

    async def _look(self, lane: Lane, request: StepRequest, sessions: list[Session]) -> None:
        """A call of the audit alone; where it fails there is no look, and nothing else."""
        if (reply := await self._answer(lane, request)) is not None:
            self._auditor.take_in(lane.worker_id, sessions, reply.replies)
        else:
            for session in sessions:
                session.drop_audits()
        self._kick()

    async def _answer(self, lane: Lane, request: StepRequest) -> StepReply | None:
        """The worker's reply. None where the step failed or the lane is lost by now."""
        try:
            reply = await asyncio.wait_for(
                self._call(lane.handle, request), self._settings.step_timeout_s
            )
        except (WorkerGone, TimeoutError) as error:
            logger.warning("worker %s lost: %s", lane.worker_id, error or "no answer in time")
            self._lose(lane)
            return None
        except Exception:
            logger.exception("a step of worker %s failed", lane.worker_id)
            return None
        finally:
            lane.in_flight -= 1
        return reply if self._is_current(lane) else None

    def _take_in(self, lane: Lane, reply: StepReply, sessions: list[Session]) -> None:
        for session, answer in zip(sessions, reply.replies, strict=True):
            running = self._running.get(session.session_id)
            if session.ends_round:
                self._replan(session, len(lane.homes))
            commit = session.on_reply(lane.worker_id, answer)
            self._planner.heard(session)
            if running is None:
                continue
            if commit is not None:
                running.failures = 0
                running.inbox.put_nowait((running.index, self._auditor.told(session, commit)))
            if session.state is State.DONE:
                self._leave(running)
            elif session.wants is not None:
                self._place(running)

    def _failed(self, lane: Lane, sessions: list[Session]) -> None:
        """The worker lives, but the step raised: each session tries again a few times, alone,
        so that the one to blame takes no other with it."""
        for session in sessions:
            if (running := self._running.get(session.session_id)) is None:
                continue
            session.on_lost(lane.worker_id)
            lane.releases.append(session.session_id)
            running.failures += 1
            if running.failures >= self._settings.max_failures:
                self._refuse(running, "internal", "the step failed repeatedly")
            elif session.wants is not None:
                self._place(running)

    @property
    def idle(self) -> bool:
        """Nothing runs, waits, is in flight or is left to release."""
        lanes = self._lanes.values()
        busy = any(lane.waiting or lane.in_flight or lane.releases for lane in lanes)
        busy = busy or not self._auditor.idle
        return not (self._running or self._queue or self._steps or busy)

    def status(self) -> dict[str, Any]:
        """A snapshot for health pages and tests; times in seconds."""
        return {
            "running": len(self._running),
            "queued": len(self._queue),
            "steps_in_flight": len(self._steps),
            "workers": [lane.describe() for lane in self._lanes.values()],
            "auto": self._planner.describe(),
            "audit": self._auditor.describe(),
        }
