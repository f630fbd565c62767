"""Laws of the advice: DESIGN section 4's figures, limits, and what hardware may not do."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.advice import (
    Bounds,
    Prices,
    advise,
    break_even_a2,
    break_even_slim,
    busy_s,
    full_rows,
    with_slim_cost,
)
from policies.costs import CostModel, Rates, TierCost
from policies.roofline import Hardware, ModelSize, forward_time
from policies.vocabulary import Plan, PlanKind, Tier
from tests.policies.fleet import OFF, Fleet, Truth, model_of

A0 = (0.5, 0.6, 0.7, 0.8)
WIDE = Bounds(12, 24)
USUAL = Bounds()
FREE = Prices()


def constant(seconds, hop_s=0.0) -> TierCost:
    return TierCost(lambda rows: seconds, hop_s=hop_s)


def design(a0, slim_s, hop_s, a2=0.5) -> CostModel:
    """Section 4's own terms: constant times, one hop a round, no whole passes."""
    times = {
        Tier.DRAFT: constant(0.10, hop_s),
        Tier.SLIM: constant(slim_s),
        Tier.FULL: constant(1.0),
    }
    return CostModel(times, Rates(a0, a0 + 0.05, a2), whole_passes=False)


@pytest.mark.parametrize(
    ("slim_s", "hop_s", "expected"),
    [
        (0.55, 0.0, (0.86, 0.90, 0.93, 0.95)),
        (0.30, 0.0, (0.71, 0.79, 0.85, 0.90)),
        (0.55, 1.0, (0.72, 0.79, 0.85, 0.90)),
    ],
)
def test_the_break_even_a2_of_design_is_reproduced(slim_s, hop_s, expected):
    found = [break_even_a2(design(a0, slim_s, hop_s), 1, WIDE) for a0 in A0]
    assert found == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("a0", A0)
def test_the_two_break_evens_say_the_same(a0):
    """At the break-even a2 of a slim, its own cost is the break-even cost."""
    a2 = break_even_a2(design(a0, 0.3, 0.0), 1, WIDE)
    assert a2 is not None
    assert break_even_slim(design(a0, 0.9, 0.0, a2), 1, WIDE) == pytest.approx(0.3, abs=0.02)


def test_a_slim_of_fulls_cost_never_pays_and_a_free_one_may():
    model = model_of(Truth(a0=0.7, a1=0.75, a2=0.97))
    [dear], [free] = (
        advise(lambda load, c=cost: with_slim_cost(model, c), (1,), USUAL, FREE)
        for cost in (1.0, 0.0)
    )
    assert (dear.slim_pays, free.slim_pays) == (False, True)
    assert break_even_slim(design(0.8, 0.3, 0.0, a2=0.1), 1, WIDE) is None


@pytest.mark.parametrize("load", [1, 4, 16])
def test_at_zero_acceptance_off_wins(load):
    model = model_of(Truth(a0=0.0, a1=0.0, a2=0.0))
    [found] = advise(lambda _: model, (load,), USUAL, FREE)
    assert found.best is PlanKind.OFF
    assert [plan.ratio < 1 for plan in found.plans] == [False, True, True]


def test_a_plan_whose_tiers_have_no_times_is_left_out():
    full = {Tier.FULL: constant(1.0)}
    [found] = advise(lambda _: CostModel(full, Rates(1, 1, 1)), (4,), USUAL, FREE)
    assert [plan.plan.kind for plan in found.plans] == [PlanKind.OFF]
    assert (found.slim_pays, found.break_even_a2) == (None, None)


@pytest.mark.parametrize("load", [1, 8])
@pytest.mark.parametrize("plan", [Plan(PlanKind.TWO_TIER, 4, 4), Plan(PlanKind.THREE_TIER, 3, 8)])
def test_cheap_workers_match_the_busy_times(load, plan):
    """With so many cheap workers to a large one, both pools take as long for a token, and the
    pools' seconds are those of a round without its hops."""
    model = model_of(Truth())
    large_s, cheap_s = busy_s(model, plan, load)
    idle = {tier: replace(time, hop_s=0.0) for tier, time in model.times.items()}
    assert load * (large_s + cheap_s) == pytest.approx(
        replace(model, times=idle).cost(plan, load), rel=1e-9
    )
    [found] = advise(lambda _: model, (load,), USUAL, FREE)
    for each in found.plans[1:]:
        assert each.cheap_busy_s / each.cheap_per_large == pytest.approx(each.large_busy_s)


@pytest.mark.parametrize("load", [1, 4])
def test_rows_of_full_are_those_of_play(load):
    truth = Truth(hit_frac=0.4, lookup=True)
    counted = 0

    def full_s(rows):
        nonlocal counted
        counted += rows
        return 1.0

    truth.full_s = full_s
    plan = Plan(PlanKind.TWO_TIER, 4, 4)
    rounds = Fleet(truth, seed=1, noise=0.0).run(4_000 // load, load, plan)
    played = counted / sum(r.tokens for r in rounds)
    assert full_rows(model_of(truth), plan, load) == pytest.approx(played, rel=0.03)


def test_prompt_lookup_wants_no_cheap_worker():
    [found] = advise(lambda _: model_of(Truth(lookup=True)), (4,), USUAL, Prices(None, 4.0))
    two, three = found.of(PlanKind.TWO_TIER), found.of(PlanKind.THREE_TIER)
    assert two is not None
    assert three is not None
    assert (two.cheap_per_large, two.price_per_mtok is None) == (0.0, False)
    assert three.cheap_per_large > 0
    assert three.price_per_mtok is None


def test_the_price_of_plain_decoding_is_the_large_workers_time():
    [found] = advise(lambda _: model_of(Truth()), (8,), USUAL, Prices(1.0, 7.2))
    plain, two = found.plans[0], found.plans[1]
    seconds = 1.0 + 0.01 * 8
    assert plain.price_per_mtok == pytest.approx(7.2 / 3600 * seconds / 8 * 1e6)
    expected = (7.2 * two.large_busy_s + 1.0 * two.cheap_busy_s) / 3600 * 1e6
    assert two.price_per_mtok == pytest.approx(expected)
    assert OFF.kind is plain.plan.kind


LARGE, SMALL = ModelSize(70e9, 140e9, 320e3), ModelSize(1e9, 2e9, 32e3)


@given(
    bandwidth=st.floats(1e11, 1e13),
    more=st.floats(1.0, 10.0),
    load=st.integers(1, 64),
    rows=st.floats(1, 2_000),
)
def test_more_bandwidth_or_more_flops_never_make_a_step_slower(bandwidth, more, load, rows):
    small = Hardware(bandwidth, 1e14, overhead_s=1e-3)
    before = forward_time(small, LARGE, load, 1024)(rows)
    for better in (
        replace(small, bandwidth_bytes_per_s=bandwidth * more),
        replace(small, flop_per_s=1e14 * more),
        replace(small, cards=2),
    ):
        assert forward_time(better, LARGE, load, 1024)(rows) <= before


@pytest.mark.parametrize("load", [1, 16])
def test_more_bandwidth_never_makes_a_plan_slower(load):
    def best(bandwidth):
        hardware = Hardware(bandwidth, 1e15)
        times = {
            tier: TierCost(forward_time(hardware, size, load, 1024), hop_s=1e-3)
            for tier, size in zip(
                Tier, (SMALL, replace(LARGE, weight_bytes=70e9), LARGE), strict=True
            )
        }
        [found] = advise(lambda _: CostModel(times, Rates(0.7, 0.75, 0.9)), (load,), USUAL, FREE)
        return [plan.token_s for plan in found.plans]

    figures = [best(scale * 1e12) for scale in (1, 2, 4, 8)]
    for slower, faster in itertools.pairwise(figures):
        assert all(b <= a for a, b in zip(slower, faster, strict=True))


def test_a_forward_waits_for_memory_at_few_rows_and_for_arithmetic_at_many():
    hardware = Hardware(1e12, 1e15, cards=2, bandwidth_frac=0.5, compute_frac=0.5, overhead_s=1e-3)
    forward_s = forward_time(hardware, LARGE, sessions=4, context_tokens=1000)
    assert forward_s(1) == pytest.approx(1e-3 + (140e9 + 4 * 1000 * 320e3) / 1e12)
    assert forward_s(10_000) == pytest.approx(1e-3 + 10_000 * 140e9 / 1e15)
