"""Laws of the accepted-length curve: it is what rounds of real acceptance would commit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.acceptance import accept_exact
from policies.costs import CostModel, Rates, TierCost, expected_tokens
from policies.rounds import Curves, Outlook, curve, fill, outlook, rounds
from policies.vocabulary import Plan, PlanKind, Tier

LONGEST = 8


def play(answer: list[int], wrong: list[bool], gamma: int) -> list[tuple[int, ...]]:
    """Rounds as they are served: the draft goes on from its own tokens, full judges them."""
    committed: list[int] = []
    commits = []
    while len(committed) + gamma < len(answer):
        start = len(committed)
        drafted: list[int] = []
        for place in range(start, start + gamma):
            on_the_way = drafted == answer[start:place]
            # Off full's path a draft may say anything; it says something else.
            drafted.append(answer[place] if on_the_way and not wrong[place] else -1)
        commits.append(accept_exact(drafted, answer[start : start + gamma + 1]))
        committed += commits[-1]
    assert committed == answer[: len(committed)]
    return commits


@given(
    wrong=st.lists(st.booleans(), min_size=1, max_size=60),
    gamma=st.integers(1, LONGEST),
)
def test_rounds_are_those_of_a_simulated_session(wrong, gamma):
    answer = list(range(len(wrong)))
    seen = outlook([not miss for miss in wrong], LONGEST)
    assert [r.kept + 1 for r in rounds(seen, gamma)] == [
        len(tokens) for tokens in play(answer, wrong, gamma)
    ]


def test_the_curve_is_the_mean_over_all_rounds_of_all_answers():
    rng = np.random.default_rng(0)
    every = [(rng.random(size) < 0.3).tolist() for size in (40, 57, 5, 90)]
    found = curve([outlook([not miss for miss in wrong], LONGEST) for wrong in every], LONGEST)
    assert found is not None
    for gamma in range(1, LONGEST + 1):
        played = [t for w in every for t in play(list(range(len(w))), w, gamma)]
        lengths = [len(tokens) for tokens in played]
        assert found.mean(gamma) == pytest.approx(np.mean(lengths))
        assert found.square(gamma) == pytest.approx(np.mean(np.square(lengths)))


def test_independent_places_give_the_geometric_formula():
    agrees = (np.random.default_rng(1).random(60_000) < 0.7).tolist()
    found = curve([outlook(agrees, LONGEST)], LONGEST)
    assert found is not None
    for gamma in (1, 4, 8):
        assert found.mean(gamma) == pytest.approx(expected_tokens(0.7, gamma), rel=0.02)


def test_the_same_rate_commits_more_with_spaced_misses_and_less_with_misses_in_a_row():
    """What no formula of the rate alone can know."""
    by_rate = expected_tokens(0.75, LONGEST)
    spaced = curve([outlook([True, True, True, False] * 100, LONGEST)], LONGEST)
    in_a_row = curve([outlook(([True] * 18 + [False] * 6) * 20, LONGEST)], LONGEST)
    assert spaced is not None
    assert in_a_row is not None
    assert spaced.mean(LONGEST) == 4.0 > by_rate > in_a_row.mean(LONGEST)


def test_a_draft_that_proposes_nothing_is_a_miss_and_no_short_round():
    seen = Outlook((0, 2, 2, 0, 0, 4, 4, 4, 0, 0), (0, 2, 1, 0, 0, 1, 0, 0, 0, 0))
    assert [(r.start, r.kept) for r in rounds(seen, 4)] == [(0, 0), (1, 2), (4, 0), (5, 1)]
    found = curve([seen], 4)
    assert found is not None
    assert found.mean(4) == pytest.approx((3 + 2) / 2)
    hit_frac, length_frac = fill([seen], 4)
    assert (hit_frac, length_frac) == (0.5, (2 + 4) / 2 / 4)


def test_a_length_that_fits_into_no_answer_ends_the_curve():
    found = curve([outlook([True] * 4, LONGEST)], LONGEST)
    assert found is not None
    assert len(found.means) == 3
    assert found.mean(8) == found.mean(3) == 4
    assert (found.mean(0), found.mean(1.5)) == (1.0, 2.5)
    assert curve([outlook([True], LONGEST)], LONGEST) is None


def test_a_measured_curve_stands_before_the_formula():
    """Where the curve is the formula's own, the cost is the same."""
    times = {tier: TierCost(lambda rows: 1 + 0.01 * rows) for tier in Tier}
    agrees = (np.random.default_rng(2).random(50_000) < 0.7).tolist()
    same = curve([outlook(agrees, 16)], 16)
    by_rate = CostModel(times, Rates(0.7, 0.7, 0.7))
    by_curve = CostModel(times, Rates(0, 0, 0), curves=Curves(same, same, same))
    for plan in (Plan(PlanKind.TWO_TIER, 4, 4), Plan(PlanKind.THREE_TIER, 3, 8)):
        assert by_curve.cost(plan, 4) == pytest.approx(by_rate.cost(plan, 4), rel=0.03)
