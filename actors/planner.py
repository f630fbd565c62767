"""A router's use of the controller: what it has measured goes in, each round's plan comes out."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from actors.messages import StepReply
from policies.catch_up import CatchUp
from policies.estimates import TierTiming
from policies.evidence import Verdicts
from policies.plan import Choice, Controller
from policies.plan_settings import ControllerSettings
from policies.pressure import Pressure
from policies.session import Session
from policies.vocabulary import Plan, PlanKind, Tier

logger = logging.getLogger("ray.serve")


class Planner:
    """Plans for sessions whose request leaves the plan to the server (`SessionSpec.auto`)."""

    def __init__(self, settings: ControllerSettings, rng: random.Random) -> None:
        self._controller = Controller(settings)
        self._catch_up = CatchUp(settings.probe_budget / 2)
        self._rng = rng
        self._taken: Counter[tuple[PlanKind, str]] = Counter()
        self._last: Choice | None = None

    @property
    def patience_s(self) -> float:
        """How long the round that was planned last may wait for a worker that proposes."""
        return math.inf if self._last is None else self._last.patience_s

    def under(self, pressure: Mapping[Tier, Pressure]) -> None:
        """What the workers of these tiers are under from now on."""
        self._controller.under(pressure)

    def recompute_s(self, tiers: Collection[Tier], rows: int) -> float:
        """Seconds to compute so many rows of one session on each of these tiers."""
        return self._catch_up.stall_s(dict.fromkeys(tiers, rows))

    def saw_step(self, reply: StepReply) -> None:
        """What one call computed on each tier."""
        for timing in reply.timings:
            prompt_rows = 0
            if timing.tier is Tier.FULL:
                scored = sum(answer.full_rows for answer in reply.replies)
                prompt_rows = max(timing.rows - scored, 0)
            self._controller.saw_step(timing, prompt_rows)
            self._catch_up.saw(timing)

    def saw_draft(self, timing: TierTiming) -> None:
        """A draft that was made here, without a call."""
        self._controller.saw_step(timing)

    def saw_hop(self, tiers: Iterable[Tier], hop_s: float) -> None:
        """What a call to the worker of these tiers took beyond its computing."""
        for tier in tiers:
            self._controller.saw_hop(tier, hop_s)

    def heard(self, told: Iterable[Verdicts]) -> None:
        """What a reply said of the tiers' agreement; lossy rounds are none of its evidence."""
        for verdicts in told:
            if verdicts.exact:
                self._controller.saw_verdicts(verdicts)

    def plan(
        self, session: Session, load: int, available: frozenset[Tier], models: frozenset[Tier]
    ) -> tuple[Plan, str]:
        """One session's next round and the reason. `load` sessions share the full worker;
        `models`: the tiers that compute a prefix before they propose."""
        try:
            choice = self._controller.choose(max(load, 1), available, self._rng.random())
        except Exception:  # a fault of the controller may cost speed, never an answer
            logger.exception("the controller failed; this round decodes plainly")
            return Plan(PlanKind.OFF), "the controller failed"
        self._last = choice
        plan, why = choice.plan, choice.reason.value
        cold_rows = session.cold_rows(plan.kind.tiers & models)
        if not self._catch_up.allows(choice, cold_rows, session.remaining):
            plan, why = Plan(PlanKind.OFF), "catching up would cost more"
            if choice.probe:
                self._controller.refused(choice)
        self._taken[plan.kind, why] += 1
        most = session.spec.plan
        if plan.gamma > most.gamma or plan.block > most.block:
            gamma, block = min(plan.gamma, most.gamma), min(plan.block, most.block)
            plan = replace(plan, gamma=gamma, block=block)
        return plan, why

    def describe(self) -> dict[str, Any]:
        """Rounds by plan and reason, the predicted seconds a token by plan, and how long a
        block may wait for a worker (None: for ever)."""
        costs = self._last.costs if self._last else {}
        return {
            "rounds": {f"{kind}: {why}": count for (kind, why), count in self._taken.items()},
            "in_force": str(self._controller.plan.kind),
            "patience_s": self.patience_s if math.isfinite(self.patience_s) else None,
            "token_s": {str(kind): cost for kind, cost in costs.items()},
        }
