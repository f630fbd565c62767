"""The spans of one session, told by its router: queue, prefill, and rounds with their stages.

Only the session's span is open; the others are told when they are over. Times are those of the
recorder, shifted to the wall clock.
"""

from __future__ import annotations

import time
from dataclasses import asdict

from infra.tracing import Carrier, Tracer
from policies.session import Session
from policies.vocabulary import Commit, Stage, StageTime

MAX_SPANS = 2_000
"""Of one session; what it does after so many is not told."""


class SessionTrace:
    """Of a session whose request is traced. `entered_s`: when it came to the router."""

    def __init__(self, tracer: Tracer, parent: Carrier, session: Session, entered_s: float) -> None:
        self._tracer = tracer
        self._session = session
        told = {
            "viaserve.session_id": session.session_id,
            "viaserve.choice": session.spec.sampling.choice,
        }
        self._span = tracer.begin("session", parent, start_s=entered_s, attributes=told)
        self._carrier = self._span.carrier
        self._round: Carrier = ()
        self._round_began_s = 0.0
        self._left = MAX_SPANS
        self._is_over = False

    def step_begins(self, at_s: float) -> Carrier:
        """A step is sent: the span that the worker's is below. Until the first commit there are
        no rounds."""
        if not self._round and self._session.counters.rounds and self._left > 0:
            self._left -= 1
            self._round, self._round_began_s = self._tracer.reserve(self._carrier), at_s
        return self._round or self._carrier

    def saw(self, stages: list[StageTime], came_s: float, commit: Commit | None) -> None:
        """A step is over, and with a commit the round. `came_s` is what stages count from."""
        below = self._round or self._carrier
        for stage in stages[: max(self._left, 0)]:
            start_s = came_s + stage.start_s
            parent = self._carrier if stage.stage is Stage.QUEUE else below
            self._tracer.span(
                stage.stage.value,
                parent,
                start_s,
                start_s + stage.wall_s,
                attributes=_stage_attributes(stage),
            )
        self._left -= len(stages)
        if commit is None or not self._round:
            return
        last = stages[-1]
        attributes = _round_attributes(last.round, commit)
        self._end_round(came_s + last.start_s + last.wall_s, attributes)

    def end(self) -> None:
        """The session runs no more; once is enough."""
        if self._is_over:
            return
        self._is_over = True
        if self._round:
            self._end_round(time.time(), {})
        session = self._session
        costs = {f"viaserve.{name}": value for name, value in asdict(session.counters).items()}
        reason = {"viaserve.finish_reason": session.finish and session.finish.value}
        cut = {"viaserve.spans_truncated": True} if self._left < 0 else {}
        self._span.set(costs | reason | cut)
        self._span.end()

    def _end_round(self, end_s: float, attributes: dict[str, object]) -> None:
        begin_s, own = self._round_began_s, self._round
        self._tracer.span("round", self._carrier, begin_s, end_s, own=own, attributes=attributes)
        self._round = ()


def _stage_attributes(stage: StageTime) -> dict[str, object]:
    return {
        "viaserve.tier": stage.tier and stage.tier.value,
        "viaserve.pool": stage.pool,
        "viaserve.worker_id": stage.worker,
        "viaserve.round": stage.round,
        "viaserve.busy_s": stage.busy_s,
        "viaserve.batch": stage.batch,
        "viaserve.rows": stage.rows,
        "viaserve.tokens.committed": stage.committed,
    }


def _round_attributes(number: int, commit: Commit) -> dict[str, object]:
    """`viaserve.rounds`: how many the one call played, where it was several."""
    plan = commit.plan
    return {
        "viaserve.round": number,
        "viaserve.rounds": commit.counters.rounds - number,
        "viaserve.plan": plan.kind.value,
        "viaserve.plan.reason": commit.why or None,
        "viaserve.gamma": plan.gamma,
        "viaserve.block": plan.block_len,
        "viaserve.tokens.committed": len(commit.tokens),
    }
