"""How long a forward of a simulated worker takes: a roofline's prediction, or what `calibrate`
measured. It knows tiers and numbers of rows, no session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Protocol

from cluster.advice.calibration import Calibration, forward_time
from policies.roofline import Hardware, ModelSize, Roofline
from policies.vocabulary import Tier


class Times(Protocol):
    """Of one pool's workers."""

    def forward_s(self, tier: Tier, sessions: int, rows: int, context_tokens: int) -> float:
        """Seconds of one forward of `rows` rows of `sessions` sessions that hold
        `context_tokens` tokens together."""
        ...

    def lookup_s(self) -> float:
        """Seconds of one prompt lookup; 0 where there is none."""
        ...


class RooflineTimes:
    """By hardware and size of each tier."""

    def __init__(self, tiers: Mapping[Tier, tuple[Hardware, ModelSize]]) -> None:
        self._laws = {tier: Roofline(*each) for tier, each in tiers.items()}

    def forward_s(self, tier: Tier, sessions: int, rows: int, context_tokens: int) -> float:
        return self._laws[tier].forward_s(rows, context_tokens)

    def lookup_s(self) -> float:
        return 0.0


class MeasuredTimes:
    """By a calibration, at the context that it was measured with; `tiers` that run a model."""

    def __init__(self, found: Calibration) -> None:
        self._found = found
        self.tiers = frozenset(step.tier for step in found.steps)

        @cache
        def law(tier: Tier, sessions: int) -> tuple[Callable[[float], float], int]:
            """Seconds by rows, and the most rows that were measured with as many sessions, or
            fewer."""
            steps = [step for step in found.steps if step.tier is tier]
            most = max((step.rows for step in steps if step.sessions <= sessions), default=0)
            return forward_time(steps, sessions), most

        self._law = law

    def forward_s(self, tier: Tier, sessions: int, rows: int, context_tokens: int) -> float:
        if tier not in self.tiers:
            return 0.0
        token_s = self._found.prefill_token_s.get(tier)
        seconds, most = self._law(tier, sessions)
        if rows <= most or token_s is None:
            return seconds(rows)
        # No line through so few rows holds for a prompt's.
        return max(seconds(most), rows * token_s)

    def lookup_s(self) -> float:
        return self._found.lookup_s or 0.0
