"""Balance in the config: how eagerly sessions move, how dear a busy pool may get, and when a
step is late."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from cluster.config_lossy import Section
from policies.balance import BalanceSettings
from policies.deadline import DeadlineSettings
from policies.pressure import PressureSettings


class BalanceConfig(Section):
    """How routers use the workers there are."""

    moves: bool = True
    """Whether a session leaves the worker that holds its prefix where another one saves more
    than `margin`."""
    margin: Annotated[float, Field(ge=0, lt=1)] = BalanceSettings().margin
    """Share of its remaining time that a move must save."""
    pressure: bool = True
    """Whether seconds of busy pools cost more in mode `auto`."""
    max_price: Annotated[float, Field(ge=1)] = PressureSettings().max_price
    """So many times more at the most."""
    late_factor: Annotated[float, Field(ge=0)] = DeadlineSettings().factor
    """A step is late after so many times what such a step takes; its sessions then ask
    another worker if there is one. 2 or more; 0: never."""

    @field_validator("late_factor")
    @classmethod
    def _no_step_is_late_at_once(cls, factor: float) -> float:
        if 0 < factor < 2:
            raise ValueError("must be 2 or more, or 0 for never")
        return factor

    def settings(self) -> BalanceSettings:
        """The choice of workers as the policies know it."""
        return BalanceSettings(margin=self.margin)

    def pressure_settings(self) -> PressureSettings | None:
        """Prices as the policies know them; None where there are none."""
        return PressureSettings(max_price=self.max_price) if self.pressure else None

    def deadline(self) -> DeadlineSettings | None:
        """Late steps as the policies know them; None where none is late."""
        return DeadlineSettings(factor=self.late_factor) if self.late_factor else None
