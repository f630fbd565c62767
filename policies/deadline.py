"""How long a step may take before its sessions are asked of another worker, and how long a
session waits after a step that failed. Pure: expectations in, seconds out.

Steps are idempotent and replies carry tickets, so asking again can cost time and never a token.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeadlineSettings:
    """A step is late after `factor` times what it should take, and not before `least_s`.
    `backoff_s`: before the first retry of a failed step, doubled each time, at most
    `most_backoff_s`."""

    factor: float = 10.0
    least_s: float = 2.0
    backoff_s: float = 0.05
    most_backoff_s: float = 5.0


def deadline_s(expected_s: float, times_late: int, settings: DeadlineSettings) -> float:
    """Seconds after which a step is late that should take `expected_s`; twice as long for each
    time in a row that its sessions were late: else two slow workers would pass them on for ever.
    """
    return max(settings.factor * expected_s, settings.least_s) * 2.0 ** min(times_late, 16)


def backoff_s(failures: int, settings: DeadlineSettings) -> float:
    """Seconds to wait after so many failures in a row, one or more."""
    assert failures >= 1, failures
    return min(settings.backoff_s * 2.0 ** min(failures - 1, 32), settings.most_backoff_s)
