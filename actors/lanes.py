"""A router's view of one worker: who waits for it, what is in flight, how long things take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from actors.messages import StepRequest, WorkerReport
from actors.pace import Pace
from policies.balance import WorkerLoad
from policies.batching import (
    BatchLimits,
    Candidate,
    Grant,
    decode_burst,
    hold_s,
    in_flight_limit,
    select,
)
from policies.session import Session
from policies.vocabulary import Tier
from policies.work import WorkKind

_SMOOTHING = 0.2
_RELEASES_PER_STEP = 1024
_UNDER_WAY = 0.5
"""Of a step, what is left of it on average when work comes."""


@dataclass(slots=True)
class Waiter:
    """A session in a lane. `since`: clock seconds at which it began to wait. `alone`: it
    shares no step."""

    session: Session
    since: float
    alone: bool = False


@dataclass(slots=True, eq=False)
class Lane:
    """One worker. `hop_s` and `step_s` are exponentially weighted seconds of a call's way to
    the worker and back, and of its computing; `wait_s` of work before its step.

    `homes`: sessions that live here; `proposing`: of a full worker, how many of its sessions
    propose at which other lane just now. `busy_s`, `item_s`: seconds computed, and the same
    times the sessions of each step. `late`: steps under way past their deadline.
    `draining`: takes nobody new; who is here moves on. `slow`: much slower than others. `hold`
    runs while it holds (see `holds`); `held`: it has, and goes now.
    """

    worker_id: str
    handle: Any
    report: WorkerReport
    max_in_flight: int
    decode_tokens: int
    waiting: dict[str, Waiter] = field(default_factory=dict)
    homes: set[str] = field(default_factory=set)
    releases: list[str] = field(default_factory=list)
    proposing: dict[Lane, int] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    in_flight: int = 0
    steps: int = 0
    measures: int = 0
    busy_s: float = 0.0
    item_s: float = 0.0
    hop_s: float = 0.0
    step_s: float = 0.0
    wait_s: float = 0.0
    late: int = 0
    draining: bool = False
    slow: bool = False
    hold: asyncio.TimerHandle | None = None
    held: bool = False

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """What the worker hosts."""
        return self.report.tiers

    @property
    def has_room(self) -> bool:
        """Whether another step may be sent now."""
        return self.in_flight < in_flight_limit(self.hop_s, self.step_s, self.max_in_flight)

    @property
    def queue_s(self) -> float:
        """Expected wait of work that comes now: half of a step under way, and the steps of those
        who wait already."""
        under_way = _UNDER_WAY * (self.in_flight > 0)
        return self.step_s * (under_way + len(self.waiting) / self.report.slots)

    @property
    def kv_frac(self) -> float:
        """Share of the slots for keys and values that is taken, of the tier with the fewest."""
        engines = self.report.engines.values()
        return max((e.sessions / e.slots for e in engines if e.slots), default=0.0)

    @property
    def closed(self) -> bool:
        """See Seat."""
        return self.draining or self.late > 0

    @property
    def calm(self) -> bool:
        """See Seat."""
        return self.queue_s <= self.step_s and not self.slow

    def load(self) -> WorkerLoad:
        """As balance sees it."""
        return WorkerLoad(
            worker_id=self.worker_id,
            sessions=len(self.homes),
            slots=self.report.slots,
            hop_s=self.hop_s,
            step_s=self.step_s,
            queue_s=self.queue_s,
            util_frac=self.report.probe.util_frac,
            kv_frac=self.kv_frac,
        )

    def holds(self, wake: Callable[[], None]) -> bool:
        """Whether to leave the waiting sessions for the moment: others of this worker's, which
        propose elsewhere, are about to come back. `wake` is called when it ends.
        """
        if not self.waiting or self.in_flight or not self.proposing:
            return self.end_hold()
        if self.hold is not None or self.held:
            return not self.held
        expected_in_s = max(lane.step_s + lane.hop_s for lane in self.proposing)
        expected = sum(self.proposing.values())
        wait_s = hold_s(len(self.waiting), expected, expected_in_s, self.step_s)
        if wait_s == 0.0:
            return False
        self.hold = asyncio.get_running_loop().call_later(wait_s, self._has_held, wake)
        return True

    def _has_held(self, wake: Callable[[], None]) -> None:
        self.hold, self.held = None, True
        wake()

    def end_hold(self) -> bool:
        """Take its timer back, if it holds; always False."""
        if self.hold is not None:
            self.hold.cancel()
        self.hold, self.held = None, False
        return False

    def next_step(self, now: float) -> tuple[StepRequest, list[Session]] | None:
        """The next call and its sessions, in item order; None where there is nothing to do."""
        if not self.waiting and not self.releases:
            return None
        self.end_hold()
        grants = self._grants(now)
        taken = [self.waiting.pop(grant.session_id) for grant in grants]
        if taken:
            waited_s = sum(now - waiter.since for waiter in taken) / len(taken)
            self.wait_s += _SMOOTHING * (waited_s - self.wait_s)
        chosen = [(waiter.session, g.rows) for waiter, g in zip(taken, grants, strict=True)]
        bursts = (WorkKind.DECODE, WorkKind.ROUNDS)
        others = sum(session.wants not in bursts for session, _ in chosen)
        burst = decode_burst(others, self.decode_tokens)
        items = tuple(s.dispatch(self.worker_id, rows, burst) for s, rows in chosen)
        release = tuple(self.releases[:_RELEASES_PER_STEP])
        del self.releases[:_RELEASES_PER_STEP]
        return StepRequest(items, release), [session for session, _ in chosen]

    def _grants(self, now: float) -> list[Grant]:
        limits = BatchLimits(self.report.token_budget, self.report.slots)
        alone = next((sid for sid, w in self.waiting.items() if w.alone), None)
        candidates = [
            Candidate(sid, w.session.rows_wanted(self.worker_id), now - w.since)
            for sid, w in self.waiting.items()
            if alone is None or sid == alone
        ]
        return select(candidates, limits)

    def measured(self, wall_s: float, busy_s: float, num_items: int, alone: bool) -> None:
        """Take in how long a call took; calls without items say nothing of a step, nor do those
        that were not sent `alone`: they have waited behind another."""
        self.steps += 1
        self.busy_s += busy_s
        self.item_s += num_items * busy_s
        if num_items and alone:
            # The first is all that is known, whatever was presumed.
            self.measures += 1
            gain = max(_SMOOTHING, 1 / self.measures)
            self.hop_s += gain * (max(wall_s - busy_s, 0.0) - self.hop_s)
            self.step_s += gain * (busy_s - self.step_s)

    def fade(self, factor: float, step_s: float, hop_s: float) -> None:
        """Nothing was asked of it: what its steps took counts for less than what others take."""
        self.pace.fade(factor)
        self.step_s = step_s + factor * (self.step_s - step_s)
        self.hop_s = hop_s + factor * (self.hop_s - hop_s)

    def describe(self) -> dict[str, Any]:
        """The lane for status pages; times in seconds."""
        report = self.report
        return {
            "worker_id": self.worker_id,
            "pool": report.pool,
            "pid": report.pid,
            "device": report.device,
            "rank_pids": list(report.rank_pids),
            "tiers": [str(tier) for tier in report.tiers],
            "row_invariant": report.row_invariant,
            "sessions": len(self.homes),
            "held_sessions": report.sessions,
            "slots": {str(tier): stats.sessions for tier, stats in report.engines.items()},
            "matchers": max((stats.matchers for stats in report.engines.values()), default=0),
            "waiting": len(self.waiting),
            "in_flight": self.in_flight,
            "late": self.late,
            "draining": self.draining,
            "slow": self.slow,
            "steps": self.steps,
            "busy_s": self.busy_s,
            "hop_s": self.hop_s,
            "step_s": self.step_s,
            "wait_s": self.wait_s,
            "probe": report.probe.describe(),
        }


def available_tiers(lanes: Collection[Lane]) -> frozenset[Tier]:
    """The tiers of the workers there are; slim counts where a draft is beside it."""
    here = {tier for lane in lanes for tier in lane.tiers}
    screens = any({Tier.DRAFT, Tier.SLIM} <= set(lane.tiers) for lane in lanes)
    return frozenset(here if screens else here - {Tier.SLIM})


def models_of(lanes: Collection[Lane]) -> frozenset[Tier]:
    """The tiers that are models: they compute a prefix, prompt lookup does not."""
    engines = [stats for lane in lanes for stats in lane.report.engines.items()]
    return frozenset(tier for tier, stats in engines if stats.slots)
