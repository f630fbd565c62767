"""Laws of a worker's pace: long steps are expected where they are long, and slowness shows."""

from __future__ import annotations

import pytest

from actors.messages import StepRequest
from actors.pace import Pace, size_of
from policies.vocabulary import Plan, PlanKind
from policies.work import WorkItem, WorkKind

TWO = Plan(PlanKind.TWO_TIER, 4)


def item(kind: WorkKind, rows: int, num_tokens: int = 0, num_rounds: int = 0) -> WorkItem:
    tokens = tuple(range(rows))
    return WorkItem("s", 1, kind, 0, tokens, 0, TWO, num_tokens, num_rounds=num_rounds)


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        (item(WorkKind.EXTEND, 100), 100),
        (item(WorkKind.DECODE, 1, 4), 5),
        (item(WorkKind.PROPOSE, 2, 7), 9),
        (item(WorkKind.VERIFY, 5, 4), 5),
        (item(WorkKind.ROUNDS, 1, 200, 2), 11),
        (item(WorkKind.ROUNDS, 1, 3, 2), 4),
    ],
)
def test_the_size_is_what_a_step_computes(asked: WorkItem, size: int):
    assert size_of(StepRequest((asked,))) == size
    assert size_of(StepRequest((asked, asked), ("gone",))) == 2 * size


def steady(steps: int = 40) -> Pace:
    """0.04 s and 4 ms a row."""
    pace = Pace()
    for number in range(steps):
        rows = (1, 5, 9, 256)[number % 4]
        pace.add(rows, 0.04 + 0.004 * rows)
    return pace


def test_nothing_is_expected_before_enough_was_seen():
    pace = Pace()
    for _ in range(5):
        assert pace.expected_s(1) is None
        pace.add(1, 0.1)
    pace.add(1, 0.1)
    assert pace.expected_s(1) == pytest.approx(0.1, rel=0.05)


def test_a_prefill_is_no_slow_step():
    pace = steady()
    assert pace.expected_s(5) == pytest.approx(0.06, rel=0.3)
    assert pace.expected_s(256) == pytest.approx(1.064, rel=0.3)
    for _ in range(20):
        pace.add(256, 1.064)
    assert pace.lag < 1.5


def test_a_worker_that_became_slow_lags_behind_itself_and_is_forgiven_in_time():
    pace = steady()
    for _ in range(4):
        pace.add(5, 0.6)
    assert pace.lag > 2
    for _ in range(90):
        pace.fade(0.95)
    assert pace.lag < 1.2
