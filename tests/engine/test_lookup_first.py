"""Laws of prompt lookup before a model: what is found is not computed, what is not found is the
model's, and the model goes on as if it had proposed everything itself."""

import pytest

from actors.engine.lookup_first import LookupFirst
from actors.engine.seam import Extend, Propose
from tests.engine.toys import context, make_engine

REPEATED = [5, 6, 7, 8, 9, 5, 6, 7]


@pytest.fixture
def pair(load_toy):
    def make():
        engine = make_engine(load_toy("llama"))
        return engine, LookupFirst(engine, longest=4, shortest=3)

    return make


def test_what_is_found_costs_no_forward(pair):
    engine, first = pair()
    asked = context("s", REPEATED)
    assert first.propose([Propose(asked, 2)]) == [[8, 9]]
    assert asked.tokens == [*REPEATED, 8, 9]
    assert engine.stats().forwards == 0


def test_the_model_proposes_what_is_not_found(pair):
    _, first = pair()
    alone, _ = pair()
    assert first.propose([Propose(context("s", [5, 6, 7, 8]), 3)]) == alone.propose(
        [Propose(context("s", [5, 6, 7, 8]), 3)]
    )


def test_the_model_goes_on_behind_what_was_found(pair):
    _, first = pair()
    alone, _ = pair()
    [proposed] = first.propose([Propose(context("s", REPEATED), 7)])
    assert proposed[:5] == [8, 9, 5, 6, 7]
    [after] = alone.propose([Propose(context("s", [*REPEATED, 8, 9, 5, 6, 7]), 2)])
    assert proposed[5:] == after


def test_a_found_stop_id_ends_the_proposal(pair):
    _, first = pair()
    asked = context("s", REPEATED, stop_ids=frozenset([8]))
    assert first.propose([Propose(asked, 4)]) == [[8]]


def test_each_session_gets_its_own(pair):
    engine, first = pair()
    asked = [Propose(context("a", REPEATED), 2), Propose(context("b", [5, 6, 7, 8]), 2)]
    alone, _ = pair()
    [other] = alone.propose([Propose(context("b", [5, 6, 7, 8]), 2)])
    assert first.propose(asked) == [[8, 9], other]
    first.release("a")
    first.release("b")
    assert engine.stats().sessions == 0


def test_the_model_scores_as_before(pair):
    _, first = pair()
    alone, _ = pair()
    assert first.extend([Extend(context("s", REPEATED), 8, 3)]) == alone.extend(
        [Extend(context("s", REPEATED), 8, 3)]
    )
