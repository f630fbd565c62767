"""Puts each running session into the lane of a worker that does what it wants next.

It plans rounds by who is there and how busy they are; it sends nothing, and ends nothing: a
session that waits too long for a worker is handed to `give_up`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from actors.auditor import Auditor
from actors.homes import Homes, Running
from actors.lanes import Lane, Waiter
from actors.planner import Planner
from actors.router_settings import RouterSettings
from actors.tally import Tally
from actors.watch import PoolWatch
from policies.balance import waits
from policies.evidence import Verdicts
from policies.session import Session
from policies.vocabulary import PlanKind
from policies.work import WorkKind


class Scheduler:
    """Of one router's sessions; runs on its event loop."""

    def __init__(
        self,
        settings: RouterSettings,
        homes: Homes,
        watch: PoolWatch,
        planner: Planner,
        auditor: Auditor,
        tally: Tally,
        clock: Callable[[], float],
        give_up: Callable[[Running], None],
    ) -> None:
        self._settings = settings
        self._homes = homes
        self._watch = watch
        self._planner = planner
        self._auditor = auditor
        self._tally = tally
        self._clock = clock
        self._give_up = give_up
        self._homeless: set[Running] = set()

    @property
    def num_homeless(self) -> int:
        """Sessions that no worker has a place for."""
        return len(self._homeless)

    def place_homeless(self) -> None:
        """A worker came: try again."""
        for running in list(self._homeless):
            self.place(running)

    def forget(self, running: Running) -> None:
        """The session is over."""
        self._homeless.discard(running)

    def replan(self, running: Running, load: int) -> None:
        """Give the session the plan of its next round. `load`: sessions of its full worker."""
        session = running.session
        if session.spec.auto:
            tiers = self._homes.tiers | self._settings.drafts_here
            session.plan, session.why = self._planner.plan(session, load, tiers, self._homes.models)
            running.patience_s = self._planner.patience_s
        else:
            session.plan = self._auditor.plan(session)

    def place(self, running: Running) -> None:
        """Put the session into the lane of a worker that does what it wants next.

        Without one it is homeless, for at most `worker_wait_s` since it became so.
        """
        session, here = running.session, self._settings.lookup
        running.place = None
        running.proposes_no_more()
        if running not in self._homeless:
            running.stop_timer()
        self._homes.move_off(running)
        if here is not None and here.serves(session):
            self._planner.saw_draft(here.propose(session))
            self._planner.heard(self.told(session))
        session.share(self._homes.plays_rounds(running))
        lane = self._homes.find(running)
        if session.wants is WorkKind.PROPOSE and not self._waits(running, lane):
            self._skip(running)
            lane = self._homes.find(running)
        if lane is not None:
            running.stop_timer()
            self._homeless.discard(running)
            alone = running.failures > 0
            running.place = lane
            lane.waiting[session.session_id] = Waiter(session, self._clock(), alone)
            if session.wants is WorkKind.PROPOSE:
                running.proposes_at(lane)
        elif running not in self._homeless:
            self._homeless.add(running)
            running.timer = asyncio.get_running_loop().call_later(
                self._settings.worker_wait_s, self._give_up, running
            )

    def told(self, session: Session) -> list[Verdicts]:
        """What is new of the tiers' agreement; it is counted in any case."""
        verdicts = session.take_verdicts()
        self._tally.heard(session.spec.mode, verdicts)
        return verdicts

    def _waits(self, running: Running, lane: Lane | None) -> bool:
        """Whether to wait for a block from there, or go on without one this round."""
        if lane is None:
            return False
        if lane is running.homes.get(WorkKind.VERIFY) or waits(lane.queue_s, running.patience_s):
            return True
        self._watch.skipped[lane.report.pool] += 1
        return False

    def _skip(self, running: Running) -> None:
        """Nobody proposes this round but, where it is at hand, prompt lookup."""
        session, spare = running.session, self._settings.spare
        if spare is not None and session.spec.auto:
            session.plan = replace(session.plan, kind=PlanKind.TWO_TIER)
            spare.propose(session)
            running.spare = session.wants is WorkKind.VERIFY
            self.told(session)
        else:
            session.skip_proposing()
