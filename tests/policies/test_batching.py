"""Laws of sharing a step: the budget holds, everybody gets on, short work goes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.batching import BatchLimits, Candidate, decode_burst, in_flight_limit, select

CANDIDATES = st.lists(
    st.tuples(st.integers(1, 3000), st.floats(0, 5)), max_size=40, unique_by=lambda x: x
).map(lambda pairs: [Candidate(f"s{i}", rows, wait) for i, (rows, wait) in enumerate(pairs)])
LIMITS = st.builds(
    BatchLimits,
    token_budget=st.integers(1, 512),
    max_sessions=st.integers(1, 16),
    ageing_s=st.floats(0, 3),
)


@given(candidates=CANDIDATES, limits=LIMITS)
def test_a_step_stays_within_its_limits(candidates, limits):
    grants = select(candidates, limits)
    wanted = {c.session_id: c.rows for c in candidates}
    assert sum(g.rows for g in grants) <= limits.token_budget
    assert len(grants) <= limits.max_sessions
    assert len({g.session_id for g in grants}) == len(grants)
    assert all(1 <= g.rows <= wanted[g.session_id] for g in grants)


@given(candidates=CANDIDATES, limits=LIMITS)
def test_no_room_is_left_while_somebody_waits(candidates, limits):
    grants = select(candidates, limits)
    full = sum(g.rows for g in grants) == limits.token_budget
    assert full or len(grants) in (limits.max_sessions, len(candidates))


@given(candidates=CANDIDATES, limits=LIMITS)
def test_only_the_last_grant_is_a_chunk(candidates, limits):
    wanted = {c.session_id: c.rows for c in candidates}
    grants = select(candidates, limits)
    assert all(g.rows == wanted[g.session_id] for g in grants[:-1])


@given(candidates=CANDIDATES, limits=LIMITS)
def test_the_longest_wait_of_the_aged_is_always_served(candidates, limits):
    aged = [c for c in candidates if c.waited_s >= limits.ageing_s]
    if aged:
        first = select(candidates, limits)[0].session_id
        waited = next(c.waited_s for c in candidates if c.session_id == first)
        assert waited == max(c.waited_s for c in aged)


@given(candidates=CANDIDATES, limits=LIMITS, data=st.data())
def test_the_order_of_arrival_in_the_list_decides_nothing_but_ties(candidates, limits, data):
    waits = [c.waited_s for c in candidates]
    if len(set(waits)) == len(waits):
        assert select(data.draw(st.permutations(candidates)), limits) == select(candidates, limits)


def test_short_work_goes_before_a_prefill_that_is_not_aged():
    candidates = [Candidate("prefill", 2000, 0.3), Candidate("decode", 1, 0.0)]
    grants = select(candidates, BatchLimits(token_budget=64, max_sessions=8))
    assert [(g.session_id, g.rows) for g in grants] == [("decode", 1), ("prefill", 63)]


@pytest.mark.parametrize(("num_short", "step_s"), [(4, 0.05), (40, 0.05), (40, 0.4), (400, 0.2)])
def test_a_stream_of_short_work_cannot_hold_a_prefill_for_ever(num_short, step_s):
    """Every short session asks again at once; more of them than a step takes."""
    limits = BatchLimits(token_budget=32, max_sessions=4, ageing_s=0.5)
    since = {f"short{i}": 0.0 for i in range(num_short)} | {"prefill": 0.0}
    left, now = 320, 0.0
    for _ in range(2_000):
        candidates = [
            Candidate(s, left if s == "prefill" else 8, now - t) for s, t in since.items()
        ]
        now += step_s
        for grant in select(candidates, limits):
            since[grant.session_id] = now
            left -= grant.rows if grant.session_id == "prefill" else 0
        if left <= 0:
            break
    assert left <= 0


@pytest.mark.parametrize("num_sessions", [5, 30])
def test_every_session_of_a_crowd_is_served_in_turn(num_sessions):
    limits = BatchLimits(token_budget=16, max_sessions=4, ageing_s=0.5)
    since = {f"s{i}": 0.0 for i in range(num_sessions)}
    served = dict.fromkeys(since, 0)
    rows = {s: 1 + 7 * (i % 3) for i, s in enumerate(since)}
    for step in range(60 * num_sessions):
        now = 0.1 * (step + 1)
        for grant in select([Candidate(s, rows[s], now - t) for s, t in since.items()], limits):
            served[grant.session_id] += 1
            since[grant.session_id] = now
    assert min(served.values()) >= 10


@pytest.mark.parametrize(
    ("hop_s", "step_s", "expected"), [(0.0, 0.0, 1), (0.001, 0.03, 1), (0.03, 0.03, 1), (0.1, 0, 2)]
)
def test_a_second_step_is_in_flight_only_to_hide_a_longer_hop(hop_s, step_s, expected):
    assert in_flight_limit(hop_s, step_s, cap=2) == expected


@pytest.mark.parametrize(("num_other", "expected"), [(0, 8), (1, 1), (30, 1)])
def test_plain_decoding_bursts_only_where_nobody_waits_for_it(num_other, expected):
    assert decode_burst(num_other, 8) == expected
