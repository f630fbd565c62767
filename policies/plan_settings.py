"""How eager and how patient the controller is; see `policies.plan`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from policies.evidence import RATES_OF
from policies.vocabulary import Plan, PlanKind


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Bounds of one controller. Illegal: ValueError.

    `initial` is in force until there is evidence against it. `margin`: predicted gain that
    another kind must promise; up to four times that for a kind that has disappointed of late.
    `leave_margin`: loss against OFF at which speculation ends at once. `shape_margin`: gain
    for another gamma or block of the same kind. `probe_budget`: share of the time that probes
    may cost altogether; `probe_cap`: of the rounds that probe one kind, at most; `learn_frac`:
    the same while a kind is unknown or promises more than it has shown; `probe_floor`: at
    least; `max_doublings`: of the wait between hopeless or unanswered probes. `min_tokens`:
    judged tokens that a rate needs to count. `call_window`, `token_window`: how much of the
    past counts in times and rates; unseen, it counts half after `stale_rounds`. `refresh`:
    observations between two searches. `decode_tokens` as in RouterSettings.
    """

    initial: Plan = field(default_factory=lambda: Plan(PlanKind.OFF))
    margin: float = 0.05
    leave_margin: float = 0.01
    shape_margin: float = 0.02
    probe_budget: float = 0.02
    probe_cap: float = 0.05
    learn_frac: float = 0.25
    probe_floor: float = 1e-4
    max_doublings: int = 4
    min_tokens: int = 32
    call_window: int = 64
    token_window: int = 400
    stale_rounds: int = 1_000
    refresh: int = 20
    max_gamma: int = 8
    max_block: int = 16
    decode_tokens: int = 4

    def at_scale(self, workers: int, slots: int) -> ControllerSettings:
        """For so many workers of full with so many sessions each. The figures are those of
        16 sessions of one worker; what more of them see and play counts for as much less."""
        scale = max(workers * slots / _SESSIONS, 1.0)
        return replace(
            self,
            refresh=self.refresh * max(workers, 1),
            token_window=round(self.token_window * scale),
            stale_rounds=round(self.stale_rounds * scale),
        )

    def __post_init__(self) -> None:
        if self.initial.kind not in RATES_OF:
            raise ValueError(f"initial must be an exact plan, not {self.initial.kind}")
        for name in ("margin", "leave_margin", "shape_margin"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for name in ("probe_budget", "probe_cap", "learn_frac", "probe_floor"):
            if not 0 < getattr(self, name) <= 0.5:
                raise ValueError(f"{name} must be in (0, 0.5], not {getattr(self, name)}")
        if self.probe_floor > min(self.probe_cap, self.learn_frac):
            raise ValueError("probe_floor must not be above probe_cap or learn_frac")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.max_doublings < 0:
            raise ValueError(f"max_doublings must not be negative: {self.max_doublings}")


_SESSIONS = 16
_COUNTS = (
    "min_tokens",
    "call_window",
    "token_window",
    "stale_rounds",
    "refresh",
    "max_gamma",
    "max_block",
    "decode_tokens",
)
