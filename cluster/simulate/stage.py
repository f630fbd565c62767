"""A simulated fleet that is ready to serve: clock, planner, desk and keeper put together.

It knows no arrivals; who asks is told when a request is answered.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from actors.planner import Planner
from cluster.simulate.clock import Clock
from cluster.simulate.desk import Asked, Desk
from cluster.simulate.keeper import Keeper
from cluster.simulate.setup import Setup
from policies.plan_settings import ControllerSettings
from policies.session import Session
from policies.vocabulary import Plan, PlanKind, SamplingParams, SamplingSpec, SessionSpec

_PARAMS = SamplingParams()


class Stage:
    """`done` is called with every request that is answered."""

    def __init__(self, setup: Setup, rng: random.Random, done: Callable[[Asked], None]) -> None:
        self.setup, self.clock = setup, Clock()
        planning, placing, working = (random.Random(rng.getrandbits(64)) for _ in range(3))
        self.planner = Planner(
            ControllerSettings(
                max_gamma=setup.max_gamma,
                max_block=setup.max_block,
                decode_tokens=setup.decode_tokens,
            ).at_scale(setup.large.workers, setup.large.slots),
            planning,
        )
        self.desk = Desk(setup, self.clock, self.planner, placing, done)
        self.keeper = Keeper(setup, self.clock, self.desk, self.planner, working)
        self._bounds = Plan(PlanKind.OFF, setup.max_gamma, setup.max_block)

    def ask(self, name: str, number: int, prompt: int, answer: int, plan: Plan | None) -> None:
        """A request comes in, the `number`th; `plan` None leaves it to the controller."""
        spec = SessionSpec(
            name,
            (0,) * prompt,
            SamplingSpec(_PARAMS, number, 0, prompt),
            answer,
            plan=plan or self._bounds,
            auto=plan is None,
        )
        self.desk.arrive(Session(spec))
