"""A router's part of the audit: which sessions wait for a look, and what the looks said.

It knows sessions by their state machine and the audit's book by one call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from actors.messages import StepRequest
from policies.audit import AuditFigures, AuditRow, counted, figures_of
from policies.audit_state import OVERSHOOT_EDGES, AuditState
from policies.lossy import LossySettings, plan_in_force
from policies.session import Session
from policies.vocabulary import Commit, Plan, PlanKind
from policies.work import WorkReply

logger = logging.getLogger("ray.serve")

Report = Callable[[Sequence[AuditRow]], Awaitable[AuditState]]
"""Hands rows to the shared book; the answer is its state."""

_MOST_ROWS = 10_000


def samples(state: AuditState) -> dict[str, dict[str, int]]:
    """Rows of the random and the biased sample, and tokens by the upper edge of their bucket of
    overshoot."""
    edges = [*map(str, OVERSHOOT_EDGES), "+Inf"]
    return {
        "sampled": asdict(state.sampled),
        "escalated": asdict(state.escalated),
        "overshoot": dict(zip(edges, state.overshoot.counts, strict=True)),
    }


class Auditor:
    """The running sessions that may want a look, and the rows that wait to be reported.

    `reported`: the counts of what this router alone has told the book, since it began."""

    def __init__(self, settings: LossySettings, fallback: Plan, report: Report) -> None:
        """`fallback`: the exact plan of sessions whose gate the audit has closed."""
        self.settings = settings
        self.fallback = fallback
        self.state = AuditState("")
        self.reported = AuditState("")
        self._report = report
        self._waiting: dict[str, Session] = {}
        self._rows: list[AuditRow] = []
        self._reporting: asyncio.Task[None] | None = None
        self._figures: tuple[AuditState, AuditFigures] | None = None

    def configure(self, settings: LossySettings, state: AuditState) -> None:
        """Settings of a live server, and the state that the book has under them."""
        self.settings, self.state, self._figures = settings, state, None

    @property
    def idle(self) -> bool:
        """No running session waits, and every row has been reported."""
        return not self._waiting and self._reporting is None

    def plan(self, session: Session) -> Plan:
        """The plan of the session's next round."""
        position = len(session.tokens)
        return plan_in_force(session.spec, position, self.fallback, self.state, self.settings)

    def told(self, session: Session, commit: Commit) -> Commit:
        """Take in what a commit says; the last one of a lossy session tells the figures."""
        self._saw(commit.audited)
        if session.wants_audit:
            self._waiting[session.session_id] = session
        if commit.finish is None or session.spec.plan.kind is not PlanKind.VIA:
            return commit
        return replace(commit, audit=self.figures())

    def figures(self) -> AuditFigures:
        """The audit as answers tell it."""
        if self._figures is None or self._figures[0] is not self.state:
            self._figures = self.state, figures_of(self.state, self.settings.audit)
        return self._figures[1]

    def describe(self) -> dict[str, Any]:
        """The figures, and what the random and the biased sample have shown over all levels;
        `overshoot` counts tokens by the upper edge of their bucket."""
        return {**asdict(self.figures()), **samples(self.state)}

    def left(self, session: Session) -> None:
        """The session runs no more; a look under way is still taken in."""
        self._waiting.pop(session.session_id, None)

    def next_step(
        self, worker_id: str, max_rows: int, max_sessions: int
    ) -> tuple[StepRequest, list[Session]] | None:
        """Looks at sessions that the worker holds, which it may do now."""
        items, sessions, left = [], [], max_rows
        for session in list(self._waiting.values()):
            if left < 2 or len(items) == max_sessions:
                break
            if session.wants_audit and worker_id in session.workers:
                items.append(session.dispatch_audit(worker_id, left))
                sessions.append(session)
                left -= len(items[-1].tokens)
        return (StepRequest(tuple(items)), sessions) if items else None

    def take_in(
        self, worker_id: str, sessions: Sequence[Session], replies: Sequence[WorkReply]
    ) -> None:
        """What the looks said."""
        for session, reply in zip(sessions, replies, strict=True):
            self._saw(session.on_audit_reply(worker_id, reply))

    def _saw(self, rows: Sequence[AuditRow]) -> None:
        self._rows += rows
        del self._rows[:-_MOST_ROWS]
        if self._rows and self._reporting is None:
            self._reporting = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        try:
            while self._rows:
                rows, self._rows = self._rows, []
                self.state = await self._report(rows)
                known = [row for row in rows if row.level <= self.settings.audit.levels]
                self.reported = counted(self.reported, self.settings.audit, known)
        except Exception:
            logger.exception("the audit's book did not answer; rows are lost")
        finally:
            self._reporting = None
