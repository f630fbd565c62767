"""Which waiting sessions share the next step of a worker, and with how many rows each.

Pure functions of what waits; the caller brings the waiting times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session that waits for a worker. `rows`: rows it wants; `waited_s`: since when."""

    session_id: str
    rows: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`token_budget`: rows of one step. `max_sessions`: sessions of one step. `ageing_s`:
    after this wait a session goes before shorter work."""

    token_budget: int
    max_sessions: int
    ageing_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Grant:
    """A session's share of the step; fewer rows than it wants is a chunk."""

    session_id: str
    rows: int


def select(candidates: Sequence[Candidate], limits: BatchLimits) -> list[Grant]:
    """Short work first (decoding and verifying before prefill), aged work before all.

    Among equals the longest wait goes first; among the aged size does not count. The first
    choice always gets rows, so every session is served after at most its ageing time and the
    steps of those before it.
    """

    def turn(candidate: Candidate) -> tuple[bool, int, float]:
        aged = candidate.waited_s >= limits.ageing_s
        return not aged, 0 if aged else _size_class(candidate.rows), -candidate.waited_s

    grants: list[Grant] = []
    left = limits.token_budget
    for candidate in sorted(candidates, key=turn)[: limits.max_sessions]:
        if left <= 0:
            break
        rows = min(candidate.rows, left)
        grants.append(Grant(candidate.session_id, rows))
        left -= rows
    return grants


def _size_class(rows: int) -> int:
    """Powers of four: sizes in one class count as equal."""
    return max(rows - 1, 0).bit_length() // 2


def in_flight_limit(hop_s: float, step_s: float, cap: int) -> int:
    """Steps to keep in flight at a worker: 1 or up to `cap`.

    A second step hides the hop but splits the waiting sessions into two cohorts that never
    share a forward again. A step's cost hardly grows with its rows (weights are read once),
    so splitting costs about a step and pays only where the hop is the longer of the two.
    """
    return cap if hop_s > step_s else 1


def decode_burst(num_other: int, burst: int) -> int:
    """Tokens that plain decoding asks for in one call: `burst`, or 1 where sessions with
    other work share the step and would wait for the burst."""
    return burst if num_other == 0 else 1


def hold_s(num_waiting: int, num_expected: int, expected_in_s: float, step_s: float) -> float:
    """How long a free worker should wait for sessions that are about to come back, in seconds.

    A step's cost hardly grows with its rows, so two half batches in turn cost a step more than
    one whole batch. Holding costs each waiting session `expected_in_s`; going on without the
    expected ones costs them most of a step. 0: go now.
    """
    if not num_expected or num_waiting * expected_in_s >= num_expected * step_s / 2:
        return 0.0
    return 2 * expected_in_s
