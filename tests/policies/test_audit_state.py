"""Laws of the audit's memory: it survives JSON, and what is no state is refused."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.audit_state import (
    OVERSHOOT_CAP,
    OVERSHOOT_EDGES,
    AuditState,
    Overshoot,
    Tally,
    from_json,
    to_json,
)

TALLIES = st.builds(Tally).flatmap(
    lambda empty: st.lists(st.booleans(), max_size=9).map(empty.plus),
)
OVERSHOOTS = st.lists(st.floats(allow_nan=False), max_size=9).map(Overshoot().plus)
STATES = st.builds(
    AuditState,
    trio=st.text(),
    level=st.integers(0, 9),
    evidence=TALLIES,
    recent=TALLIES,
    escalated=TALLIES,
    sampled=TALLIES,
    overshoot=OVERSHOOTS,
    relaxed=st.booleans(),
    failed_relaxations=st.integers(0, 9),
    version=st.integers(0, 2**40),
)


@given(state=STATES)
def test_a_state_survives_json(state):
    assert from_json(to_json(state)) == state


@pytest.mark.parametrize(
    "damage",
    [
        {"level": -1},
        {"level": "2"},
        {"version": 1.5},
        {"trio": 7},
        {"relaxed": 1},
        {"evidence": {"rows": 1, "disagreements": 2}},
        {"evidence": {"rows": True, "disagreements": 0}},
        {"recent": None},
        {"sampled": {"rows": 1, "wrong": 0}},
        {"overshoot": {"counts": [0], "total": 0.0, "most": None}},
        {"overshoot": {"counts": [0] * 11, "total": math.nan, "most": None}},
        {"overshoot": {"counts": [0] * 11, "total": 0.0, "most": "much"}},
        {"unknown": 0},
    ],
)
def test_a_damaged_state_is_refused(damage):
    fields = json.loads(to_json(AuditState("trio")))
    with pytest.raises(ValueError, match="not an audit state"):
        from_json(json.dumps(fields | damage))


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{}", '{"trio": "t"}'])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="not an audit state"):
        from_json(text)


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(-9.0, 0), (-2.0, 0), (-1.9, 1), (0.0, 3), (0.01, 4), (8.0, 9), (8.1, 10), (math.inf, 10)],
)
def test_a_bucket_holds_its_upper_edge(value, bucket):
    counts = Overshoot().plus([value]).counts
    assert [i for i, count in enumerate(counts) if count] == [bucket]
    assert len(counts) == len(OVERSHOOT_EDGES) + 1


def test_an_infinite_overshoot_is_the_most_there_is():
    overshoot = Overshoot().plus([1.0, math.inf]).plus([-math.inf])
    assert (overshoot.most, overshoot.total) == (OVERSHOOT_CAP, 1.0)
    assert Overshoot().plus([]) == Overshoot()


def test_a_tally_of_more_disagreements_than_rows_is_none():
    with pytest.raises(ValueError, match="2 disagreements in 1 rows"):
        Tally(1, 2)
