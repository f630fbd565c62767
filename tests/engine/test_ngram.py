"""Laws of prompt lookup: what followed the latest earlier match of the longest suffix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.ngram import NgramEngine, lookup
from actors.engine.seam import Extend, Propose
from tests.engine.toys import context

IDS = st.lists(st.integers(0, 3), max_size=40)


def by_definition(tokens: list[int], num_tokens: int, longest: int, shortest: int) -> list[int]:
    for length in range(longest, shortest - 1, -1):
        suffix = tokens[len(tokens) - length :]
        for start in range(len(tokens) - length - 1, -1, -1):
            if tokens[start : start + length] == suffix:
                return tokens[start + length : start + length + num_tokens]
    return []


@given(tokens=IDS, num=st.integers(1, 8), longest=st.integers(1, 6), data=st.data())
def test_lookup_is_its_definition(tokens, num, longest, data):
    shortest = data.draw(st.integers(1, longest))
    assert lookup(tokens, num, longest, shortest) == by_definition(tokens, num, longest, shortest)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], []),
        ([1], []),
        ([1, 2, 3], []),
        ([1, 1, 1], [1]),
        ([1, 2, 9, 1, 2, 8, 1, 2], [8, 1, 2]),
        ([5, 1, 2, 9, 9, 1, 2, 8, 5, 1, 2], [9, 9, 1]),
    ],
)
def test_the_longest_match_wins_then_the_latest(tokens, expected):
    assert lookup(tokens, 3, longest=4, shortest=2) == expected


@given(tokens=IDS, num=st.integers(1, 8), stop=st.integers(0, 3))
def test_a_proposal_is_appended_and_ends_behind_a_stop_id(tokens, num, stop):
    free, bound = (context("s", tokens, stop_ids=frozenset(s)) for s in ([], [stop]))
    engine = NgramEngine()
    [found] = engine.propose([Propose(free, num)])
    [stopped] = engine.propose([Propose(bound, num)])
    assert free.tokens == tokens + found
    assert bound.tokens == tokens + stopped
    assert stopped == found[: found.index(stop) + 1] if stop in found else stopped == found


def test_it_caches_nothing_and_scores_nothing():
    engine = NgramEngine()
    asked = context("s", [1, 2, 3])
    assert engine.extend([Extend(asked, 3, 0)]) == [[]]
    with pytest.raises(AssertionError):
        engine.extend([Extend(asked, 3, 1)])
    engine.truncate("s", 1)
    engine.release("s")
    assert engine.stats().sessions == engine.stats().cached_tokens == 0
