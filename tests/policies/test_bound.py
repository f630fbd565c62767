"""Laws of the anytime-valid bound: it covers at every step, however the rows depend."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from policies.bound import FEWER, MORE, log_wealth, refuted, upper_bound

RUNS, ROWS, CONFIDENCE = 1_000, 5_000, 0.95
LIMIT = -math.log1p(-CONFIDENCE)
COUNTS = st.integers(1, 3_000).flatmap(
    lambda rows: st.tuples(st.just(rows), st.integers(0, rows)),
)


def covered_share(rates, outcomes, bets) -> float:
    """Share of runs whose bound covers the running mean rate at EVERY step.

    rates: broadcasts to (runs, rows), P(d_t = 1 | past); outcomes: the d_t. A bound covers a
    rate iff the rows do not refute it (a law below), which needs no bisection.
    """
    steps = np.arange(1, outcomes.shape[1] + 1)
    failed = []
    for run, rate in zip(outcomes, np.broadcast_to(rates, outcomes.shape), strict=True):
        wealth = log_wealth(steps, np.cumsum(run), np.cumsum(rate) / steps, bets)
        failed.append(wealth.max() >= LIMIT)
    return 1 - float(np.mean(failed))


@pytest.mark.parametrize(
    "rate", [0.001, 0.05, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (0.01, 0.2))]
)
def test_the_upper_bound_covers_a_constant_rate_at_every_step(rate):
    outcomes = np.random.default_rng(1).random((2 * RUNS, ROWS)) < rate
    assert covered_share(rate, outcomes, FEWER) >= CONFIDENCE


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.2])
def test_the_lower_bound_covers_at_every_step(rate):
    outcomes = np.random.default_rng(2).random((RUNS // 2, ROWS)) < rate
    assert covered_share(rate, outcomes, MORE) >= CONFIDENCE


def test_rows_that_depend_on_each_other_and_a_rate_that_drifts_are_covered():
    rng = np.random.default_rng(3)
    span, spans = 8, 250
    # A disagreement makes the next row of its span fail seven times as often; load drifts.
    base = np.linspace(0.002, 0.04, span * spans)
    rates, outcomes = np.empty((RUNS, span * spans)), np.zeros((RUNS, span * spans), bool)
    for t in range(span * spans):
        after_failure = outcomes[:, t - 1] if t % span else np.zeros(RUNS, bool)
        rates[:, t] = base[t] * np.where(after_failure, 7, 1)
        outcomes[:, t] = rng.random(RUNS) < rates[:, t]
    assert covered_share(rates, outcomes, FEWER) >= CONFIDENCE


@given(counts=COUNTS, rate=st.floats(0.0001, 0.999))
def test_the_bound_is_where_refutation_begins(counts, rate):
    bound = upper_bound(*counts, CONFIDENCE)
    if rate > bound:
        assert refuted(*counts, rate, FEWER, CONFIDENCE)
    elif rate < bound - 1e-9:
        assert not refuted(*counts, rate, FEWER, CONFIDENCE)


@given(counts=COUNTS)
def test_a_failure_raises_the_bound_and_a_success_lowers_it(counts):
    rows, failures = counts
    bound = upper_bound(rows, failures, CONFIDENCE)
    assert failures / rows <= bound <= 1
    assert upper_bound(rows + 1, failures + 1, CONFIDENCE) >= bound - 1e-9
    assert upper_bound(rows + 1, failures, CONFIDENCE) <= bound + 1e-9
    if failures < rows:
        assert upper_bound(rows, failures + 1, CONFIDENCE) >= bound


@given(counts=COUNTS)
def test_more_confidence_is_a_higher_bound(counts):
    assert upper_bound(*counts, 0.99) >= upper_bound(*counts, 0.95)


@pytest.mark.parametrize(("rate", "fixed", "rows"), [(0.001, 2_995, 3_349), (0.01, 299, 334)])
def test_no_failure_needs_little_more_than_a_fixed_sample(rate, fixed, rows):
    assert math.ceil(LIMIT / -math.log1p(-rate)) == fixed
    assert upper_bound(rows, 0, CONFIDENCE) <= rate < upper_bound(rows - 1, 0, CONFIDENCE)


@pytest.mark.parametrize(
    ("rows", "failures", "times"), [(1_000, 1, 1.9), (2_000, 20, 1.4), (5_000, 1_000, 1.06)]
)
def test_the_price_against_a_fixed_sample_is_small(rows, failures, times):
    fixed = stats.beta.ppf(CONFIDENCE, failures + 1, rows - failures)
    assert fixed < upper_bound(rows, failures, CONFIDENCE) < times * fixed


def test_no_rows_say_nothing():
    assert upper_bound(0, 0, CONFIDENCE) == 1.0
    assert not refuted(0, 0, 0.5, FEWER, CONFIDENCE)
    assert not refuted(0, 0, 0.5, MORE, CONFIDENCE)


@pytest.mark.parametrize("bets", [FEWER, MORE])
@pytest.mark.parametrize("rate", [0.001, 0.3])
def test_wealth_is_fair_in_the_mean_where_the_rate_is_true(bets, rate):
    failures = np.arange(61)
    wealth = np.exp(log_wealth(60, failures, rate, bets))
    assert stats.binom.pmf(failures, 60, rate) @ wealth == pytest.approx(1.0)
