"""The router: takes requests in, batches their sessions' work, and calls the workers.

It knows sessions by their state machine and workers by their lane; no text, no model, no Ray
(calls and membership are handed in). Every method runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, replace
from functools import partial, reduce
from typing import Any

from actors.auditor import Auditor
from actors.balancer import Balancer
from actors.homes import Homes, Running
from actors.lanes import Lane
from actors.messages import GenerateRequest, Membership, Output, Refusal, StepRequest
from actors.planner import Planner
from actors.recorder import Recorder, Step
from actors.router_settings import RouterSettings
from actors.scheduler import Scheduler
from actors.steps import Call, Steps
from actors.tally import Tally
from actors.usage import Demand, demand
from actors.watch import PoolWatch
from infra.tracing import Carrier, Tracer
from policies.counting import together
from policies.deadline import DeadlineSettings, backoff_s
from policies.session import Session
from policies.transitions import State
from policies.vocabulary import Counters, Tier
from policies.work import WorkKind

logger = logging.getLogger("ray.serve")


class Router:
    """One router replica. `auditor` watches over the sessions of lossy plans, `planner` chooses
    for those that leave the plan to it. `look` is to be called about once a second."""

    def __init__(
        self,
        settings: RouterSettings,
        call: Call,
        auditor: Auditor,
        planner: Planner,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._tracer = tracer
        self._auditor = auditor
        self._planner = planner
        self._clock = clock
        balancer = Balancer(settings.balance, rng or random.Random())
        self._homes = Homes(balancer, planner.recompute_s, moves=settings.moves)
        self._watch = PoolWatch(settings.pressure, settings.drafts_here)
        self._steps = Steps(call, clock, settings.step_timeout_s, settings.deadline, self._lose)
        self._backoff = settings.deadline or DeadlineSettings()
        self._tally = Tally()
        self._scheduler = Scheduler(
            settings,
            self._homes,
            self._watch,
            planner,
            auditor,
            self._tally,
            clock,
            self._give_up,
        )
        self._queue: deque[Running] = deque()
        self._running: dict[str, Running] = {}
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
        now = self._clock()
        entered = [
            Running(Session(s, share), i, inbox, entered_s=now)
            for i, s in enumerate(request.sessions)
        ]
        if request.timed is not None:
            for running in entered:
                timed, session = request.timed, running.session
                running.recorder = Recorder(timed, session, self._clock, self._tracer)
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
        room = max(self._room - len(self._running), 0)
        if waiting - room <= self._settings.max_queued:
            return None
        wait_s = max(
            1.0, math.ceil(len(self._queue) * self._service_s / self._settings.max_running)
        )
        return Refusal("overloaded", "the queue is full; try again later", wait_s)

    @property
    def _room(self) -> int:
        """Sessions that run at once. More than the workers of full have slots for would push
        each other out."""
        most, share = self._settings.max_running, self._settings.share
        slots = self._homes.num_slots()
        return most if share is None or not slots else min(most, max(int(share * slots), 1))

    def _leave(self, running: Running) -> None:
        """Take the session out everywhere; once is enough, twice does no harm."""
        session = running.session
        session.cancel()
        if running.recorder is not None:
            running.recorder.end()
        self._auditor.left(session)
        self._tally.brought_up([running])
        if running in self._queue:
            self._queue.remove(running)
        if self._running.pop(session.session_id, None) is None:
            return
        self._service_s += 0.1 * (self._clock() - running.started_s - self._service_s)
        running.stop_timer()
        self._scheduler.forget(running)
        self._homes.forget(running)

    def set_members(self, membership: Membership) -> None:
        """Take in who is there; sessions of workers that left or drain move on."""
        present = {entry.report.worker_id: entry for entry in membership.workers}
        lanes, settings = self._homes.lanes, self._settings
        for lane in list(lanes.values()):
            entry = present.get(lane.worker_id)
            if entry is None or entry.handle != lane.handle:
                self._lose(lane)
        for worker_id, entry in present.items():
            if (lane := lanes.get(worker_id)) is not None:
                lane.report = entry.report
            else:
                bounds = settings.max_in_flight, settings.decode_tokens
                self._homes.add(Lane(worker_id, entry.handle, entry.report, *bounds))
        draining = [lanes[worker_id] for worker_id, entry in present.items() if entry.draining]
        told = [lane for lane in draining if not lane.draining]
        for lane in told:
            lane.draining = True
        self._homes.changed()
        for lane in told:
            waiting = [self._running[session_id] for session_id in lane.waiting]
            lane.waiting.clear()
            for running in waiting:
                self._scheduler.place(running)
        self._scheduler.place_homeless()
        self._kick()

    def look(self) -> None:
        """See how busy the pools are; what that makes their tiers cost is in the next plans."""
        lanes = self._homes.lanes.values()
        self._planner.under(self._watch.look(self._clock(), lanes, self._homes.load()))

    def _lose(self, lane: Lane) -> None:
        """The worker is gone: its sessions move on, what it still answers is stale."""
        if not self._homes.has(lane):
            return
        self._homes.remove(lane)
        lane.end_hold()
        for running in list(self._running.values()):
            session = running.session
            was_busy = session.wants is None
            self._homes.leave(running, lane)
            if session.wants is not None and (was_busy or running.place is lane):
                self._scheduler.place(running)

    def _kick(self) -> None:
        """Schedule one pass of `_advance`; what happens until then shares its steps."""
        if not self._kicked:
            self._kicked = True
            asyncio.get_running_loop().call_soon(self._advance, context=self._context)

    def _advance(self) -> None:
        """Admit who waits, then send every worker with room its next step."""
        self._kicked = False
        while self._queue and len(self._running) < self._room:
            self._admit(self._queue.popleft())
        for lane in list(self._homes.lanes.values()):
            if lane.holds(self._kick):
                continue
            while lane.has_room and (step := lane.next_step(self._clock())) is not None:
                lane.in_flight += 1
                request, sessions = self._traced(*step)
                alone = lane.in_flight == 1
                self._steps.start(self._step(lane, request, sessions, alone=alone))
        self._audit()

    def _traced(
        self, request: StepRequest, sessions: list[Session]
    ) -> tuple[StepRequest, list[Session]]:
        """With the spans for the worker's to be below, of those sessions that have any."""
        if self._tracer is None:
            return request, sessions
        traces: list[tuple[int, Carrier]] = []
        for place, session in enumerate(sessions):
            recorder = self._running[session.session_id].recorder
            if recorder is not None and (carrier := recorder.step_begins()):
                traces.append((place, carrier))
        return (replace(request, traces=tuple(traces)) if traces else request), sessions

    def _audit(self) -> None:
        """Background looks, where a full worker has nothing else to do."""
        for lane in list(self._homes.lanes.values()):
            if Tier.FULL not in lane.tiers or lane.in_flight or lane.waiting or lane.draining:
                continue
            limits = lane.report.token_budget, lane.report.slots
            looks = self._auditor.next_step(lane.worker_id, *limits)
            if looks is not None:
                lane.in_flight += 1
                self._steps.start(self._look_back(lane, *looks))

    def _admit(self, running: Running) -> None:
        running.started_s = self._clock()
        self._tally.waited(running.session.spec.mode, running.started_s - running.entered_s)
        self._running[running.session.session_id] = running
        self._scheduler.replan(running, self._homes.load(newcomers=1))
        self._scheduler.place(running)

    def _give_up(self, running: Running) -> None:
        wait_s = self._settings.worker_wait_s
        self._refuse(running, "unavailable", f"no worker with the full model within {wait_s:g} s")
        self._kick()

    def _refuse(self, running: Running, kind: Any, message: str) -> None:
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
        late = partial(self._overdue, lane, request, sessions)
        times_late = max((self._late_times(session) for session in sessions), default=0)
        answered = await self._steps.answer(
            lane,
            request,
            alone=alone,
            times_late=times_late,
            late=late if sessions and self._homes.has_mate(lane) else None,
        )
        if answered is None and self._homes.has(lane):
            self._failed(lane, request, sessions)
        elif answered is not None and self._homes.has(lane):
            reply, wall_s = answered
            self._planner.saw_step(reply)
            self._tally.computed(lane.report.pool, reply.timings)
            if request.items and alone:
                # Where full is, the others' part of a round comes in the call that asks full.
                called = set(lane.tiers) - self._settings.drafts_here
                hopped = {Tier.FULL} & called or called
                self._planner.saw_hop(hopped, max(wall_s - reply.busy_s, 0.0))
            try:
                self._take_in(Step(lane, request, reply, wall_s), sessions)
            except Exception:  # ours or the worker's fault: nobody may wait for ever
                logger.exception("the reply of worker %s cannot be taken in", lane.worker_id)
                self._refuse_all(sessions)
        self._kick()

    async def _look_back(self, lane: Lane, request: StepRequest, sessions: list[Session]) -> None:
        """A call of the audit alone; where it fails there is no look, and nothing else."""
        answered = await self._steps.answer(lane, request, alone=False)
        if answered is not None and self._homes.has(lane):
            self._tally.computed(lane.report.pool, answered[0].timings)
            self._auditor.take_in(lane.worker_id, sessions, answered[0].replies)
        else:
            for session in sessions:
                session.drop_audits()
        self._kick()

    def _take_in(self, step: Step, sessions: list[Session]) -> None:
        lane = step.lane
        for place, (session, answer) in enumerate(zip(sessions, step.reply.replies, strict=True)):
            running = self._running.get(session.session_id)
            if running is None or not session.awaits(lane.worker_id, answer.ticket):
                continue
            running.late = 0
            if session.ends_round:
                self._scheduler.replan(running, len(lane.homes))
            rounds = session.counters.rounds
            commit = session.on_reply(lane.worker_id, answer)
            verdicts = self._scheduler.told(session)
            if running.recorder is not None:
                commit = running.recorder.saw(step, place, rounds, commit)
            if running.spare:
                # Prompt lookup alone is not the draft that the controller knows.
                running.spare = session.wants is WorkKind.VERIFY
            else:
                self._planner.heard(verdicts)
            if commit is not None:
                running.failures, running.shuns = 0, None
                running.inbox.put_nowait((running.index, self._auditor.told(session, commit)))
            if session.state is State.DONE:
                self._leave(running)
            elif session.wants is not None:
                self._scheduler.place(running)

    def _failed(self, lane: Lane, request: StepRequest, sessions: list[Session]) -> None:
        """The worker lives, but the step raised: each session tries again a few times, after a
        while, alone, so that the one to blame takes no other with it, and elsewhere if it can."""
        for running in self._awaiting(lane, request, sessions):
            self._homes.leave(running, lane)
            running.shuns = lane
            running.failures += 1
            if running.failures >= self._settings.max_failures:
                self._refuse(running, "internal", "the step failed repeatedly")
            else:
                after_s = backoff_s(running.failures, self._backoff)
                loop = asyncio.get_running_loop()
                running.timer = loop.call_later(after_s, self._retry, running)

    def _retry(self, running: Running) -> None:
        running.timer = None
        self._scheduler.place(running)
        self._kick()

    def _overdue(self, lane: Lane, request: StepRequest, sessions: list[Session]) -> None:
        """The step should have been answered long ago: its sessions, and those that wait behind
        it, go to another worker if there is one. What this one still answers is stale."""
        self._watch.late[lane.report.pool] += 1
        if not self._homes.has(lane) or not self._homes.has_mate(lane):
            return
        logger.warning("a step of worker %s is late", lane.worker_id)
        moving = self._awaiting(lane, request, sessions)
        for running in moving:
            running.late += 1
        moving += [self._running[session_id] for session_id in lane.waiting]
        lane.waiting.clear()
        for running in moving:
            self._homes.leave(running, lane)
            self._scheduler.place(running)
        self._kick()

    def _awaiting(self, lane: Lane, request: StepRequest, sessions: list[Session]) -> list[Running]:
        """Those that still wait for this step: others have left, or were asked of another."""
        steps = zip(request.items, sessions, strict=True)
        ids = [s.session_id for item, s in steps if s.awaits(lane.worker_id, item.ticket)]
        return [self._running[session_id] for session_id in ids if session_id in self._running]

    def _late_times(self, session: Session) -> int:
        running = self._running.get(session.session_id)
        return 0 if running is None else running.late

    def demand(self) -> dict[str, Demand]:
        """On each pool, for autoscaling."""
        waiting = len(self._queue) + self._scheduler.num_homeless
        return demand(self._homes.lanes.values(), waiting)

    @property
    def idle(self) -> bool:
        """Nothing runs, waits, is in flight or is left to release."""
        lanes = self._homes.lanes.values()
        busy = any(lane.waiting or lane.in_flight or lane.releases for lane in lanes)
        busy = busy or not self._auditor.idle
        return not (self._running or self._queue or len(self._steps) or busy)

    def tally(self) -> Tally:
        """What has been counted so far, for metrics."""
        return self._tally.brought_up(self._running.values())

    def status(self) -> dict[str, Any]:
        """A snapshot for health pages and tests; times in seconds. `costs`: what all sessions
        have cost, those that are over included."""
        costs = reduce(together, self.tally().costs.values(), Counters())
        return {
            "running": len(self._running),
            "queued": len(self._queue),
            "steps_in_flight": len(self._steps),
            "costs": asdict(costs),
            "workers": [lane.describe() for lane in self._homes.lanes.values()],
            "pools": self._watch.describe(self._homes.moved),
            "auto": self._planner.describe(),
            "audit": self._auditor.describe(),
        }
