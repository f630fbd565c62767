"""What one session's steps took, as the router sees them: made of replies, after the fact.

Only sessions of timed requests have a recorder. Where several tiers worked for a session in one
call, the call's time is told apart by what its reply says that each tier computed, in the order
draft, slim, full: the parts are as long as their shares, not where the clock saw them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from actors.lanes import Lane
from actors.messages import StepReply, StepRequest, Timed
from actors.session_trace import SessionTrace
from infra.tracing import Carrier, Tracer
from policies.session import Session
from policies.vocabulary import Commit, Stage, StageTime, Tier
from policies.work import WorkItem, WorkKind, WorkReply

MAX_STAGES = 2_001
"""One more than an answer shows, so that the ingress knows that there were more."""

_STAGES = {Tier.DRAFT: Stage.PROPOSE, Tier.SLIM: Stage.SCREEN, Tier.FULL: Stage.VERIFY}
_WHOLE = {
    WorkKind.EXTEND: Stage.PREFILL,
    WorkKind.DECODE: Stage.DECODE,
    WorkKind.VERIFY: Stage.VERIFY,
    WorkKind.PROPOSE: Stage.PROPOSE,
    WorkKind.ROUNDS: Stage.ROUNDS,
}


@dataclass(frozen=True, slots=True)
class Step:
    """A call to a worker that has been answered, `wall_s` after it was made."""

    lane: Lane
    request: StepRequest
    reply: StepReply
    wall_s: float

    def seconds(self, tier: Tier) -> float | None:
        """What it computed for all its sessions, if it says so."""
        return next((t.seconds for t in self.reply.timings if t.tier is tier), None)


class Recorder:
    """Of one session. `clock` is the router's, `wall` the one that the ingress has read; `tracer`
    makes spans of what is noted, where the request is traced."""

    def __init__(
        self,
        timed: Timed,
        session: Session,
        clock: Callable[[], float],
        tracer: Tracer | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._timed = timed
        self._clock = clock
        self._entered_s = clock()
        # The clocks of two machines may differ by more than the way takes.
        here_s = wall()
        self._came_s = self._entered_s - max(here_s - timed.came_s, 0.0)
        self._to_wall_s = here_s - self._entered_s
        self._trace: SessionTrace | None = None
        if timed.trace and tracer is not None:
            self._trace = SessionTrace(tracer, timed.trace, session, here_s)
        self._stages: list[StageTime] = []
        self._left = MAX_STAGES
        self._is_queued = True

    def saw(self, step: Step, place: int, rounds: int, commit: Commit | None) -> Commit | None:
        """Note the step's item at `place`, in round number `rounds`; the commit that it led to
        carries what was noted since the last one, if the request asks for it."""
        begin_s = self._clock() - step.wall_s
        stages: list[StageTime] = []
        if self._is_queued:
            self._is_queued = False
            stages.append(self._queue(step, begin_s))
        item, answer = step.request.items[place], step.reply.replies[place]
        committed = 0 if commit is None else len(commit.tokens)
        parts = _parts(step, item, answer, rounds)
        stages += _laid_out(step, parts, begin_s - self._came_s, rounds, committed)
        if self._trace is not None:
            self._trace.saw(stages, self._came_s + self._to_wall_s, commit)
        if not self._timed.told:
            return commit
        self._stages += stages[: self._left]
        self._left -= len(stages[: self._left])
        if commit is None:
            return None
        taken, self._stages = tuple(self._stages), []
        return replace(commit, stages=taken)

    def step_begins(self) -> Carrier:
        """A step is sent: the span for the worker's to be below, if the session is traced."""
        if self._trace is None:
            return ()
        return self._trace.step_begins(self._clock() + self._to_wall_s)

    def end(self) -> None:
        """The session runs no more."""
        if self._trace is not None:
            self._trace.end()

    def _queue(self, step: Step, until_s: float) -> StageTime:
        entered_s, lane = self._entered_s, step.lane
        start_s, wall_s = entered_s - self._came_s, max(until_s - entered_s, 0.0)
        pool, worker = lane.report.pool, lane.worker_id
        return StageTime(Stage.QUEUE, None, pool, worker, 0, start_s, wall_s, 0.0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Part:
    stage: Stage
    tier: Tier | None
    busy_s: float
    rows: int


def _parts(step: Step, item: WorkItem, answer: WorkReply, rounds: int) -> list[_Part]:
    """What the call was for this session, tier by tier where the reply tells them apart."""
    rows = {
        Tier.DRAFT: answer.draft_tokens,
        Tier.SLIM: answer.slim_rows,
        Tier.FULL: answer.full_rows,
    }
    if item.kind in (WorkKind.PROPOSE, WorkKind.ROUNDS):
        tiers = [Tier.DRAFT]
        tiers += [Tier.SLIM] * (answer.slim_passes > 0)
        tiers += [Tier.FULL] * (item.kind is WorkKind.ROUNDS)
        seconds = [step.seconds(tier) or 0.0 for tier in tiers]
        if sum(seconds) > 0:
            parts = zip(tiers, seconds, strict=True)
            return [_Part(_STAGES[tier], tier, busy_s, rows[tier]) for tier, busy_s in parts]
        tier = Tier.DRAFT if item.kind is WorkKind.PROPOSE else None
        return [_Part(_WHOLE[item.kind], tier, step.reply.busy_s, rows[tier or Tier.FULL])]
    extends = item.kind is WorkKind.EXTEND
    tier = Tier.FULL if Tier.FULL in step.lane.tiers else None
    busy_s = (step.seconds(tier) if tier else None) or step.reply.busy_s
    # The first commit of all: the prompt, and the token behind it.
    first = item.kind is WorkKind.DECODE and rounds == 0
    stage = Stage.PREFILL if first else _WHOLE[item.kind]
    return [_Part(stage, tier, busy_s, len(item.tokens) if extends or first else rows[Tier.FULL])]


def _laid_out(
    step: Step, parts: list[_Part], start_s: float, rounds: int, committed: int
) -> list[StageTime]:
    """One behind the other, by their shares of the call; the last one commits."""
    lane, batch = step.lane, len(step.request.items)
    whole_s = sum(part.busy_s for part in parts)
    stages: list[StageTime] = []
    for part in parts:
        is_last = part is parts[-1]
        share = part.busy_s / whole_s if len(parts) > 1 else 1.0
        stages.append(
            StageTime(
                stage=part.stage,
                tier=part.tier,
                pool=lane.report.pool,
                worker=lane.worker_id,
                round=rounds,
                start_s=start_s,
                wall_s=share * step.wall_s,
                busy_s=part.busy_s,
                batch=batch,
                rows=part.rows,
                committed=committed if is_last else 0,
            )
        )
        start_s += share * step.wall_s
    return stages
