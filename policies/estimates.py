"""What the controller believes of times and rates, from what it has seen so far.

Every estimate is exponentially weighted and gets stale: the mean of what is seen no more
stays, but counts for less against what is seen next. No clock: the caller says what has passed.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

from policies.vocabulary import Tier

_SLOPE = 0.02
"""Without evidence a row adds this share of a forward's fixed cost."""
_SLOPE_TRUST = 25.0
"""Rows squared times calls, at few rows, that weigh as much as the slope presumed."""
_LINE_TRUST = 4.0
"""Calls of one size that weigh as much as the line through all sizes."""
_OUTLIER = 5.0
"""A call counts as at most so many times what was expected: a pause is no new speed."""
_SETTLED = 4.0
"""Calls after which a size is known well enough to tell a change of speed from itself."""
_LEVEL_GAIN = 1 / 16
_FAST_TOKENS = 32.0
_SURPRISE = 4.0
"""Standard errors between the last tokens and the long mean that make the past void."""
_AFTER_SURPRISE = 16.0
_STALEST = 1.0


@dataclass(frozen=True, slots=True)
class TierTiming:
    """A tier's share of one worker call: seconds computed, over `forwards` forward passes with
    `rows` rows in total. No forwards: proposing that runs no model, as prompt lookup does."""

    tier: Tier
    seconds: float
    forwards: int
    rows: int


@dataclass(slots=True)
class Mean:
    """A mean over the last `window` of weight, with a prior that weighs `weight` at first."""

    value: float
    window: float
    weight: float = 0.0
    seen: float = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Take in `weight` observations whose mean is `value`."""
        self.value += weight / (self.weight + weight) * (value - self.value)
        self.weight = min(self.weight + weight, self.window)
        self.seen = min(self.seen + weight, self.window)

    def age(self, factor: float) -> None:
        """Let what was seen count for less."""
        self.weight = max(self.weight * factor, min(self.weight, _STALEST))
        self.seen *= factor


class Acceptance:
    """A rate per token. A change of workload shows in the last tokens before the long mean
    follows; then what was before is forgotten."""

    def __init__(self, prior: float, prior_tokens: float, window: float) -> None:
        self._long = Mean(prior, window, prior_tokens)
        self._last = Mean(prior, _FAST_TOKENS, prior_tokens)

    @property
    def value(self) -> float:
        """Accepted over judged."""
        return self._long.value

    @property
    def tokens(self) -> float:
        """Judged tokens that the value rests on, the stale ones for less."""
        return self._long.seen

    def add(self, judged: int, kept: int) -> None:
        """`kept` of `judged` tokens were accepted."""
        self._long.add(kept / judged, judged)
        self._last.add(kept / judged, judged)
        rate = min(max(self._long.value, 0.05), 0.95)
        # An exponentially weighted mean has the variance of 2 n independent values.
        error = math.sqrt(rate * (1 - rate) / (2 * self._last.weight))
        if abs(self._last.value - self._long.value) > _SURPRISE * error:
            self._long.value = self._last.value
            self._long.weight = min(self._long.weight, _AFTER_SURPRISE)

    def age(self, factor: float) -> None:
        """Let what was seen count for less."""
        self._long.age(factor)
        self._last.age(factor)


@dataclass(slots=True)
class _Size:
    """Calls of about one size, in half octaves: mean rows, and mean seconds over the level."""

    rows: float
    seconds: float
    calls: float


class ForwardTime:
    """Seconds of one forward of a tier as a function of its rows.

    Means per size, drawn towards a line through all of them, base + per_row rows (ridge
    regression: where all calls had one size, the slope is the one presumed). `level`: how much
    slower than these means everything runs of late; so a machine that slows down does not
    make the sizes look good that were last seen before.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._level = 1.0
        self._sizes: dict[int, _Size] = {}

    @property
    def calls(self) -> float:
        """Calls that the estimate rests on, the stale ones for less."""
        return sum(size.calls for size in self._sizes.values())

    def add(self, rows: float, seconds: float) -> None:
        """A forward of `rows` rows took `seconds`; both may be means over a call's forwards."""
        key = round(2 * math.log2(max(rows, 1.0)))
        size = self._sizes.setdefault(key, _Size(rows, seconds / self._level, 0.0))
        if size.calls >= _SETTLED:
            seconds = min(seconds, _OUTLIER * self._level * size.seconds)
        gain = 1 / (size.calls + 1)
        size.rows += gain * (rows - size.rows)
        size.seconds += gain * (seconds / self._level - size.seconds)
        size.calls = min(size.calls + 1, self._window)
        if size.calls > _SETTLED and size.seconds > 0:
            self._level += _LEVEL_GAIN * (seconds / size.seconds - self._level)

    def age(self, factor: float) -> None:
        """Let what was seen count for less."""
        for size in self._sizes.values():
            size.calls = max(size.calls * factor, min(size.calls, _STALEST))

    def fit(self) -> Callable[[float], float]:
        """The function of rows, as known now; never negative. Needs one call at least."""
        sizes = sorted(self._sizes.values(), key=lambda size: size.rows)
        total = sum(size.calls for size in sizes)
        mid_rows = sum(size.calls * size.rows for size in sizes) / total
        mid = sum(size.calls * size.seconds for size in sizes) / total
        trust = _SLOPE_TRUST * (1 + _SLOPE * mid_rows) ** 2
        spread = sum(size.calls * (size.rows - mid_rows) ** 2 for size in sizes)
        common = sum(size.calls * (size.rows - mid_rows) * (size.seconds - mid) for size in sizes)
        presumed = _SLOPE * mid / (1 + _SLOPE * mid_rows)
        slope = (common + trust * presumed) / (spread + trust)
        slope = min(max(slope, 0.0), mid / mid_rows)

        level = self._level
        knots = [size.rows for size in sizes]
        values: list[float] = []
        for size in sizes:
            line = mid + slope * (size.rows - mid_rows)
            share = size.calls / (size.calls + _LINE_TRUST)
            values.append(level * (line + share * (size.seconds - line)))
        slope *= level

        def forward_s(rows: float) -> float:
            at = bisect.bisect(knots, rows)
            if at in (0, len(knots)):
                end = min(at, len(knots) - 1)
                return max(values[end] + slope * (rows - knots[end]), 0.0)
            share = (rows - knots[at - 1]) / (knots[at] - knots[at - 1])
            return values[at - 1] + share * (values[at] - values[at - 1])

        return forward_s
