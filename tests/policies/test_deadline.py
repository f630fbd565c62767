"""Laws of late steps: never hasty, ever more patient."""

from hypothesis import given
from hypothesis import strategies as st

from policies.deadline import DeadlineSettings, backoff_s, deadline_s

SETTINGS = DeadlineSettings()


@given(st.floats(0, 1e3), st.integers(0, 10_000))
def test_no_step_is_late_before_it_took_many_times_what_it_takes(expected_s: float, late: int):
    found = deadline_s(expected_s, late, SETTINGS)
    assert found >= max(SETTINGS.factor * expected_s, SETTINGS.least_s)
    assert deadline_s(expected_s, late + 1, SETTINGS) >= found


def test_each_time_in_a_row_the_patience_doubles():
    waits = [deadline_s(1.0, late, SETTINGS) for late in range(4)]
    assert waits == [10.0, 20.0, 40.0, 80.0]


@given(st.integers(1, 10_000))
def test_retries_wait_ever_longer_up_to_a_bound(failures: int):
    assert backoff_s(failures, SETTINGS) <= backoff_s(failures + 1, SETTINGS)
    assert 0 < backoff_s(failures, SETTINGS) <= SETTINGS.most_backoff_s
    assert backoff_s(1, SETTINGS) == SETTINGS.backoff_s
