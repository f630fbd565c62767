"""Laws of the fake engine: a real engine's contract, a dial for agreement, no forgiveness."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.fake import FakeEngine
from actors.engine.seam import Extend, Propose
from tests.engine.toys import context, text

IDS = st.lists(st.integers(0, 49), min_size=1, max_size=30)


@given(tokens=IDS, cuts=st.sets(st.integers(1, 30)))
def test_one_pass_gives_what_one_by_one_gives(tokens, cuts):
    length = len(tokens)
    [together] = FakeEngine().extend([Extend(context("s", tokens), length, length)])
    engine, asked, pieces, start = FakeEngine(), context("s", tokens), [], 0
    for end in sorted({c for c in cuts if c < length} | {length}):
        pieces += engine.extend([Extend(asked, end, end - start)])[0]
        start = end
    assert pieces == together == [engine.choose(tokens[:i], 0) for i in range(1, length + 1)]


@pytest.mark.parametrize("agreement", [0.0, 0.3, 0.9, 1.0])
def test_agreement_is_the_share_of_prefixes_with_the_full_choice(agreement):
    full, other = FakeEngine(), FakeEngine(agreement=agreement, salt=3)
    prefixes = [text(i, 5, 50) for i in range(2_000)]
    agreed = sum(full.choose(p, 1) == other.choose(p, 1) for p in prefixes) / len(prefixes)
    assert agreed == pytest.approx(agreement, abs=0.04)


def test_it_depends_on_the_seed():
    tokens = text(1, 20, 50)
    chosen = {seed: FakeEngine().choose(tokens, seed) for seed in (-1, 0, 1, 2**63)}
    assert len(set(chosen.values())) > 1


def test_a_stale_cache_fails_the_test_that_made_it():
    engine, asked = FakeEngine(), context("s", [1, 2, 3])
    engine.extend([Extend(asked, 3, 0)])
    asked.tokens[1] = 9
    with pytest.raises(AssertionError, match="not a prefix"):
        engine.extend([Extend(asked, 3, 1)])
    engine.truncate("s", 1)
    engine.extend([Extend(asked, 3, 1)])


def test_proposing_stops_behind_a_stop_id():
    engine, tokens = FakeEngine(), [1, 2, 3]
    [free] = engine.propose([Propose(context("a", tokens), 10)])
    stopped = context("b", tokens, stop_ids=frozenset({free[4]}))
    [found] = engine.propose([Propose(stopped, 10)])
    assert found == free[: free.index(free[4]) + 1] == stopped.tokens[3:]


def test_release_forgets():
    engine = FakeEngine()
    engine.extend([Extend(context("s", [1, 2]), 2, 1)])
    assert engine.stats().cached_tokens == 2
    engine.release("s")
    engine.release("unknown")
    assert (engine.stats().sessions, engine.stats().cached_tokens) == (0, 0)
