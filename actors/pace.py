"""How long one worker's steps take by their size: what a step may be expected to take, and
whether the worker is slower than it was."""

from __future__ import annotations

from collections.abc import Callable

from actors.messages import StepRequest
from policies.estimates import ForwardTime
from policies.work import WorkItem, WorkKind

_WINDOW = 64.0
_SETTLED = 6.0
"""Steps before anything is expected of the next."""
_REFIT = 8
"""Steps between two fits."""
_SMOOTHING = 0.2
TYPICAL = 8
"""Size of a step by which workers are compared."""


def size_of(request: StepRequest) -> int:
    """Positions that a step computes: rows it is told, and tokens it is asked for."""
    return sum(len(item.tokens) + _asked(item) for item in request.items)


def _asked(item: WorkItem) -> int:
    if item.kind is WorkKind.ROUNDS:
        return min(item.num_rounds * (item.plan.block_len + 1), item.num_tokens)
    return item.num_tokens if item.kind in (WorkKind.DECODE, WorkKind.PROPOSE) else 0


class Pace:
    """One worker's. `lag`: seconds of its last steps over those it used to take (smoothed)."""

    def __init__(self) -> None:
        self._times = ForwardTime(_WINDOW)
        self._fit: Callable[[float], float] | None = None
        self._since_fit = 0
        self.lag = 1.0

    def add(self, size: int, seconds: float) -> None:
        """A step of this size took so long."""
        expected_s = self.expected_s(size)
        if expected_s:
            self.lag += _SMOOTHING * (seconds / expected_s - self.lag)
        self._times.add(size, seconds)
        self._since_fit += 1
        if self._times.calls >= _SETTLED and (self._fit is None or self._since_fit >= _REFIT):
            self._fit, self._since_fit = self._times.fit(), 0

    def expected_s(self, size: int) -> float | None:
        """Seconds that a step of this size takes; None until enough was seen."""
        return None if self._fit is None else self._fit(size)

    def fade(self, factor: float) -> None:
        """Nothing was asked of it: what was seen counts for less, and it may have recovered."""
        self._times.age(factor)
        self.lag = 1 + factor * (self.lag - 1)
