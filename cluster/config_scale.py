"""Autoscaling in the config: bounds of a pool, and how one pool follows the other."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cluster.config_lossy import Section
from policies.autoscale import Coupling, ScaleSettings

Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ScaleConfig(Section):
    """How many workers a pool has, by its load; see ScaleSettings.

    `target`: work that each worker is to have, as a share of what it can do. A worker more
    where work waits longer than `max_queue_s`. Up after `up_s` of wanting more, down after
    `down_s` of wanting less.
    """

    min: Annotated[int, Field(ge=0)] = 1
    max: Annotated[int, Field(ge=1)]
    target: Annotated[float, Field(gt=0, le=1)] = 0.7
    max_queue_s: Duration = 1.0
    up_s: Duration = 5.0
    down_s: Duration = 120.0

    @model_validator(mode="after")
    def _ordered(self) -> ScaleConfig:
        if self.min > self.max:
            raise ValueError(f"min {self.min} must be at most max {self.max}")
        return self

    def settings(self) -> ScaleSettings:
        """The same as the policy knows it."""
        return ScaleSettings(
            self.min, self.max, self.target, self.max_queue_s, self.up_s, self.down_s
        )


class CouplingConfig(Section):
    """How a pool without full follows the pool with it; see Coupling.

    `max_ratio`: its workers to one of full at the most. `wake`: use of the pool with full, as a
    share of what it can do, at which a pool of no worker gets one.
    """

    max_ratio: Above = 4.0
    wake: Above = 0.5

    def settings(self) -> Coupling:
        """The same as the policy knows it."""
        return Coupling(self.max_ratio, self.wake)
