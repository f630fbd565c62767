"""Laws of the cost model: DESIGN's figures, and agreement with a simulated fleet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.costs import CostModel, Rates, TierCost, cheapest, expected_tokens
from policies.estimates import TierTiming
from policies.evidence import Evidence, Windows
from policies.vocabulary import Plan, PlanKind, Tier
from tests.policies.fleet import DECODE_TOKENS, OFF, Fleet, Truth, cost, model_of

A0 = (0.5, 0.6, 0.7, 0.8)
PLANS = [
    OFF,
    *(Plan(PlanKind.TWO_TIER, g, g) for g in (1, 3, 8)),
    *(Plan(PlanKind.THREE_TIER, g, n) for g, n in ((1, 4), (3, 6), (4, 12), (6, 16))),
]


def constant(seconds, hop_s=0.0) -> TierCost:
    return TierCost(lambda rows: seconds, hop_s=hop_s)


def break_even(a0, draft_s, slim_s, hop_s) -> float:
    """The a2 at which T3 = T2, where full's hop alone costs something."""
    times = {
        Tier.DRAFT: constant(draft_s, hop_s),
        Tier.SLIM: constant(slim_s),
        Tier.FULL: constant(1.0),
    }
    low, high = 0.0, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        model = CostModel(times, Rates(a0, a0 + 0.05, middle), whole_passes=False)
        two = min(model.cost(Plan(PlanKind.TWO_TIER, g, g), 1) for g in range(1, 13))
        three = min(
            model.cost(Plan(PlanKind.THREE_TIER, g, n), 1)
            for g in range(1, 13)
            for n in range(1, 25)
        )
        low, high = (low, middle) if three < two else (middle, high)
    return high


@pytest.mark.parametrize(
    ("draft_s", "slim_s", "hop_s", "expected"),
    [
        (0.10, 0.55, 0.0, (0.86, 0.90, 0.93, 0.95)),
        (0.10, 0.30, 0.0, (0.71, 0.79, 0.85, 0.90)),
        (0.10, 0.55, 1.0, (0.72, 0.79, 0.85, 0.90)),
    ],
)
def test_the_break_even_figures_of_design_are_reproduced(draft_s, slim_s, hop_s, expected):
    found = [break_even(a0, draft_s, slim_s, hop_s) for a0 in A0]
    assert found == pytest.approx(expected, abs=0.01)


@given(accept=st.floats(0, 1), length=st.integers(0, 16))
def test_expected_tokens_is_the_sum_of_what_each_place_adds(accept, length):
    assert expected_tokens(accept, length) == pytest.approx(
        sum(accept**m for m in range(length + 1)), rel=1e-6
    )


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: f"{p.kind}-{p.gamma}-{p.block}")
@pytest.mark.parametrize("load", [1, 4, 16])
def test_predictions_agree_with_play(plan, load):
    """In a crowd a long block is predicted dearer than it is, never cheaper: the stragglers'
    passes have fewer rows."""
    truth = Truth()
    rounds = Fleet(truth, seed=1, noise=0.0).run(1_600 // load, load, plan)
    ratio = model_of(truth).cost(plan, load) / cost(rounds)
    assert 0.94 < ratio < (1.06 if load < 16 else 1.12)


@pytest.mark.parametrize("load", [1, 4])
def test_a_draft_that_often_proposes_nothing_is_predicted(load):
    truth = Truth(a0=0.8, hit_frac=0.2, lookup=True)
    plan = Plan(PlanKind.TWO_TIER, 4, 4)
    rounds = Fleet(truth, seed=1, noise=0.0).run(3_000 // load, load, plan)
    assert model_of(truth).cost(plan, load) == pytest.approx(cost(rounds), rel=0.03)


@pytest.mark.parametrize("a", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("load", [1, 8])
def test_the_search_finds_the_best_shape(a, load):
    model = model_of(Truth(a0=a, a1=a, a2=a))
    for kind in (PlanKind.TWO_TIER, PlanKind.THREE_TIER):
        _, found = cheapest(model, kind, load, 8, 16)
        every = [Plan(kind, g, n) for g in range(1, 9) for n in range(2, 17)]
        assert found <= 1.02 * min(model.cost(plan, load) for plan in every)


def test_plain_decoding_shares_its_hop_among_the_tokens_of_a_call():
    model = CostModel({Tier.FULL: constant(1.0, 0.4)}, Rates(0, 0, 0), DECODE_TOKENS)
    assert model.cost(OFF, 3) == pytest.approx(1.1)


def test_calls_that_lookup_answers_cost_no_forward():
    evidence = Evidence(Windows(calls=64, tokens=400, stale_rounds=1000))
    for _ in range(32):
        evidence.saw_step(TierTiming(Tier.FULL, 0.040, forwards=1, rows=4), max_rows=100)
        evidence.saw_step(TierTiming(Tier.DRAFT, 0.012, forwards=3, rows=3), max_rows=100)
        evidence.saw_step(TierTiming(Tier.DRAFT, 0.001, forwards=0, rows=0), max_rows=100)
    model = evidence.model(decode_tokens=1)
    assert model.times[Tier.DRAFT].spared_frac == pytest.approx(0.5)
    plan = Plan(PlanKind.TWO_TIER, gamma=3, block=3)
    assert model.propose_s(plan, load=1) == pytest.approx((0.012 + 0.001) / 2, rel=0.01)
