"""A router's use of the controller: what it has measured goes in, each round's plan comes out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from actors.messages import StepReply
from policies.plan import Choice, Controller
from policies.plan_settings import ControllerSettings
from policies.session import Session
from policies.vocabulary import Plan, Tier


class Planner:
    """Plans for sessions whose request leaves the plan to the server (`SessionSpec.auto`)."""

    def __init__(self, settings: ControllerSettings, rng: random.Random) -> None:
        self._controller = Controller(settings)
        self._rng = rng
        self._taken: Counter[str] = Counter()
        self._last: Choice | None = None

    def saw_step(self, reply: StepReply) -> None:
        """What one call computed on each tier."""
        for timing in reply.timings:
            self._controller.saw_step(timing)

    def saw_hop(self, tiers: Iterable[Tier], hop_s: float) -> None:
        """What a call to the worker of these tiers took beyond its computing."""
        for tier in tiers:
            self._controller.saw_hop(tier, hop_s)

    def heard(self, session: Session) -> None:
        """What a reply said of the tiers' agreement."""
        for verdicts in session.take_verdicts():
            self._controller.saw_verdicts(verdicts)

    def plan(self, session: Session, load: int, available: frozenset[Tier]) -> tuple[Plan, str]:
        """One session's next round and the reason; `load` sessions share the full worker."""
        choice = self._controller.choose(max(load, 1), available, self._rng.random())
        self._last = choice
        self._taken[f"{choice.plan.kind}: {choice.reason}"] += 1
        most = session.spec.plan
        shape = {
            "gamma": min(choice.plan.gamma, most.gamma),
            "block": min(choice.plan.block, most.block),
        }
        return replace(choice.plan, **shape), str(choice.reason)

    def describe(self) -> dict[str, Any]:
        """Rounds by plan and reason, and the predicted seconds a token by plan."""
        costs = self._last.costs if self._last else {}
        return {
            "rounds": dict(self._taken),
            "in_force": str(self._controller.plan.kind),
            "token_s": {str(kind): cost for kind, cost in costs.items()},
        }
