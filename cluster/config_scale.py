"""Autoscaling in the config: bounds of a pool, and how one pool follows the other."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cluster.config_lossy import Section
from policies.autoscale import Coupling, ScaleSettings

Workers = Annotated[int, Field(strict=True, ge=1, le=10_000)]
Duration = Annotated[float, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]


class ScaleConfig(Section):
    """How many workers a pool has, by its load; see ScaleSettings."""

    min: Annotated[int, Field(strict=True, ge=0)] = 1
    """Workers at least; 0 only where full is elsewhere."""
    max: Workers
    """Workers at most."""
    target: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Work that each worker is to have, as a share of what it can do."""
    max_queue_s: Duration = 1.0
    """A worker more where work waits longer."""
    up_s: Duration = 5.0
    """Up after so long of wanting more."""
    down_s: Duration = 120.0
    """Down after so long of wanting less."""

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
    """How a pool without full follows the pool with it; see Coupling."""

    max_ratio: Above = 4.0
    """Workers without full to one of full, at most."""
    wake: Above = 0.5
    """Use of the pool with full, as a share of what it can do, at which a pool of no worker
    gets one."""

    def settings(self) -> Coupling:
        """The same as the policy knows it."""
        return Coupling(self.max_ratio, self.wake)
