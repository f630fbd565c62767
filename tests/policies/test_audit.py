"""Laws of the audit: a bad slim is stopped soon, a good one never, and nothing oscillates."""

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.audit import (
    AuditRow,
    AuditSettings,
    disagreement_bound,
    gate_in_force,
    observe,
    shadow_gate,
)
from policies.audit_state import AuditState, Tally
from policies.gates import Gate, GateKind

SETTINGS = AuditSettings()
CLOSED = SETTINGS.levels
START = AuditState("draft/slim/full")
SPAN = 8
ROWS = st.builds(
    AuditRow,
    disagrees=st.booleans(),
    overshoot=st.floats(-50, 50),
    escalated=st.booleans(),
    level=st.integers(0, CLOSED),
)


@functools.cache
def row(disagrees: bool, level: int) -> AuditRow:
    return AuditRow(disagrees, 1.0 if disagrees else 0.0, escalated=False, level=level)


def batch(state, rng, rate, size=SPAN) -> list[AuditRow]:
    """A span passed at the present level, `rate` of it wrong."""
    return [row(bool(d), state.level) for d in rng.random(size) < rate]


def run(state, rng, rate, rows, size=SPAN):
    """The states after each batch of audited rows; `rate` is a number or one per level."""
    for _ in range(0, rows, size):
        now = rate[state.level] if isinstance(rate, list) else rate
        state = observe(state, SETTINGS, batch(state, rng, now, size))
        yield state


def last(states):
    return functools.reduce(lambda _, state: state, states)


def tokens_until_closed(rng, rate, unseen_frac) -> int:
    """Committed tokens until the gate is closed, in spans audited with the default share."""
    state, tokens = START, 0
    while state.level < CLOSED:
        span = int(rng.integers(1, SPAN + 1))
        tokens += span
        if rng.random() < unseen_frac * SETTINGS.sample_prob:
            state = observe(state, SETTINGS, batch(state, rng, rate, span))
    return tokens


@pytest.mark.parametrize("rate", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("unseen_frac", [1.0, 0.4])
def test_a_planted_bad_slim_is_closed_within_2000_tokens(rate, unseen_frac):
    """Also where it escalates so much that full sees most tokens."""
    rng = np.random.default_rng(1)
    assert max(tokens_until_closed(rng, rate, unseen_frac) for _ in range(200)) <= 2_000


def test_it_goes_step_by_step():
    levels = [state.level for state in run(START, np.random.default_rng(1), 0.9, 400)]
    assert [level for level, _ in itertools.groupby(levels)] == [0, 1, 2, 3, 4]


def test_a_good_slim_is_never_tightened():
    rng = np.random.default_rng(2)
    for _ in range(100):
        good = run(START, rng, 0.2 * SETTINGS.epsilon, 10_000, size=25)
        assert all(state.level == 0 for state in good)


def test_a_good_slim_whose_failures_come_in_clusters_is_not_tightened():
    """A failure makes the next row of its span fail 100 times as often; the mean is as good."""
    rng = np.random.default_rng(7)
    for _ in range(50):
        state = START
        for _ in range(10_000 // SPAN):
            failed, rows = False, []
            for uniform in rng.random(SPAN):
                failed = uniform < (0.3 if failed else 0.003)
                rows.append(row(bool(failed), 0))
            state = observe(state, SETTINGS, rows)
            assert state.level == 0


@pytest.mark.parametrize("rate", [0.021, 0.03])
def test_a_slim_just_above_epsilon_is_tightened_once_it_should_have_been_proven(rate):
    for seed in range(20):
        states = list(run(START, np.random.default_rng(seed), rate, SETTINGS.proof_rows + SPAN))
        assert states[-1].level > 0


def test_a_long_good_past_does_not_hide_a_slim_that_goes_bad():
    rng = np.random.default_rng(3)
    proven = last(run(START, rng, 0.002, 200_000, size=1_000))
    assert (proven.level, proven.evidence.rows) == (0, 200_000)
    assert last(run(proven, rng, 0.5, 200)).level == CLOSED


def test_what_is_too_loose_is_tried_ever_less_often():
    rng = np.random.default_rng(4)
    loose_bad = [0.3, 0.3, 0.002, 0.001, 0.001]
    states = list(run(START, rng, loose_bad, 400_000, size=32))
    versions = [b.version for a, b in itertools.pairwise(states) if b.level < a.level]
    waits = np.diff(versions) * 32
    longest = SETTINGS.relax_rows << SETTINGS.relax_doublings
    # Failed trials cost min_rows each and lie ever further apart, up to the longest wait.
    assert states[-1].failed_relaxations == SETTINGS.relax_doublings
    assert all(waits[n] >= SETTINGS.relax_rows << min(n + 1, 4) for n in range(len(waits)))
    assert len(versions) <= SETTINGS.relax_doublings + 400_000 // longest
    assert sum(state.level < 2 for state in states) / len(states) < 0.01


def test_a_slim_that_stays_bad_stays_closed():
    closed = replace(START, level=CLOSED)
    states = run(closed, np.random.default_rng(5), 0.1, 100_000, size=50)
    assert all(state.level == CLOSED for state in states)


def test_the_fallback_ends_by_shadow_rows_once_slim_is_good():
    rng = np.random.default_rng(6)
    state = last(run(replace(START, level=CLOSED), rng, 0.5, 50_000, size=50))
    good = list(run(state, rng, 0.001, 40_000, size=50))
    first_open = next(n for n, state in enumerate(good) if state.level < CLOSED)
    assert SETTINGS.relax_rows <= (first_open + 1) * 50 <= 3 * SETTINGS.relax_rows
    assert good[-1].level == 0
    assert good[-1].failed_relaxations == 0


@given(rows=st.lists(ROWS, max_size=30), level=st.integers(0, CLOSED), data=st.data())
def test_the_order_within_a_batch_does_not_matter(rows, level, data):
    shuffled = data.draw(st.permutations(rows))
    state = replace(START, level=level)
    assert observe(state, SETTINGS, rows) == observe(state, SETTINGS, shuffled)


@given(first=st.lists(ROWS, max_size=15), second=st.lists(ROWS, max_size=15))
def test_routers_may_report_in_any_order_while_no_level_changes(first, second):
    def after(*batches):
        return functools.reduce(lambda state, rows: observe(state, SETTINGS, rows), batches, START)

    one, other = after(first, second), after(second, first)
    close = pytest.approx(one.overshoot.total, abs=1e-9)
    assert other.overshoot.total == close
    assert replace(one, overshoot=other.overshoot) == other
    assert one.overshoot.counts == other.overshoot.counts


@given(rows=st.lists(ROWS, max_size=30), level=st.integers(0, CLOSED))
def test_escalated_stale_and_shadow_rows_are_counted_apart(rows, level):
    state = observe(replace(START, level=level), SETTINGS, rows)
    random = [row for row in rows if not row.escalated]
    assert state.level == level
    assert state.evidence.rows == sum(row.level == level for row in random)
    assert state.sampled.rows == sum(row.level < CLOSED for row in random)
    assert state.escalated.rows == len(rows) - len(random)
    assert sum(state.overshoot.counts) == state.sampled.rows


def test_escalated_rows_never_tighten():
    wrong = [AuditRow(True, 9.0, escalated=True, level=0)] * 5_000
    state = observe(START, SETTINGS, wrong)
    assert (state.level, state.escalated) == (0, Tally(5_000, 5_000))
    assert disagreement_bound(state, SETTINGS) == 1.0


def test_a_new_level_begins_its_evidence_anew_and_keeps_the_totals():
    wrong = [row(True, 0)] * SETTINGS.min_rows
    state = observe(START, SETTINGS, wrong)
    assert (state.level, state.evidence, state.recent) == (1, Tally(), Tally())
    assert state.sampled == Tally(SETTINGS.min_rows, SETTINGS.min_rows)
    assert observe(state, SETTINGS, wrong).level == 1, "late rows of level 0 are no evidence"


def test_an_empty_batch_changes_nothing():
    assert observe(START, SETTINGS, []) is START


def test_the_bound_shown_is_that_of_this_level():
    state = observe(START, SETTINGS, [row(False, 0)] * 334)
    assert disagreement_bound(state, SETTINGS) <= 0.01


@pytest.mark.parametrize("kind", GateKind)
def test_the_closed_level_is_exact_and_its_shadow_gate_open(kind):
    gate = Gate(kind)
    assert gate_in_force(gate, START, SETTINGS) == gate
    assert gate_in_force(gate, replace(START, level=CLOSED), SETTINGS).closed
    shadow = shadow_gate(gate, SETTINGS)
    assert not shadow.closed
    assert shadow == gate_in_force(gate, replace(START, level=CLOSED - 1), SETTINGS)


@pytest.mark.parametrize(
    "fault",
    [
        {"epsilon": 0.0},
        {"confidence": 1.0},
        {"alarm_confidence": float("nan")},
        {"sample_prob": 1.1},
        {"relax_fraction": 0.0},
        {"levels": 0},
        {"min_rows": 0},
        {"relax_doublings": -1},
    ],
)
def test_illegal_settings_are_named(fault):
    with pytest.raises(ValueError, match=next(iter(fault))):
        AuditSettings(**fault)
