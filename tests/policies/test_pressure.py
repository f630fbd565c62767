"""Laws of pressure: which way each heat moves the plan, and that nothing oscillates."""

import heapq
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.costs import CostModel, cheapest
from policies.plan import Controller
from policies.pressure import (
    PoolLoad,
    Pressure,
    PressureSettings,
    Price,
    pressed,
    price_of,
    unhurried,
)
from policies.vocabulary import Plan, PlanKind, Tier
from tests.policies.fleet import ALL, OFF, Fleet, Truth, kind_changes, model_of

SETTINGS = PressureSettings()
TRUTH = Truth(a0=0.7, a1=0.8, a2=0.93, slim_s=lambda rows: 0.25 + 0.001 * rows)
PRICES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
KINDS = (PlanKind.OFF, PlanKind.TWO_TIER, PlanKind.THREE_TIER)


def hot(cheap=1.0, large=1.0) -> dict[Tier, Pressure]:
    return {
        Tier.DRAFT: Pressure(cheap),
        Tier.SLIM: Pressure(cheap),
        Tier.FULL: Pressure(large),
    }


def best_of(model: CostModel, kind=None, load=4) -> Plan:
    found = [cheapest(model, each, load, 8, 16) for each in ([kind] if kind else KINDS)]
    return min(found, key=lambda pair: pair[1])[0]


def test_a_hot_cheap_pool_shortens_drafts_then_drops_slim_then_speculation():
    model = model_of(TRUTH)
    plans = [best_of(pressed(model, hot(cheap=price))) for price in PRICES]
    order = {PlanKind.THREE_TIER: 0, PlanKind.TWO_TIER: 1, PlanKind.OFF: 2}
    ranks = [order[plan.kind] for plan in plans]
    assert ranks == sorted(ranks)
    assert set(ranks) == {0, 1, 2}
    two = PlanKind.TWO_TIER
    gammas = [best_of(pressed(model, hot(cheap=price)), two).gamma for price in PRICES]
    assert gammas == sorted(gammas, reverse=True)
    assert gammas[-1] < gammas[0]


def test_a_hot_large_pool_gets_longer_screened_blocks_in_fewer_passes():
    model = model_of(TRUTH)
    plans = [best_of(pressed(model, hot(large=price))) for price in PRICES]
    assert plans[-1].kind is PlanKind.THREE_TIER
    blocks = [plan.block for plan in plans if plan.kind is PlanKind.THREE_TIER]
    assert blocks == sorted(blocks)
    assert blocks[-1] > blocks[0]
    committed = [model.tokens(plan, 4) for plan in plans]
    assert committed == sorted(committed)


def test_an_idle_large_pool_beside_a_hot_cheap_one_decodes_plainly():
    model = model_of(TRUTH)
    assert best_of(model).kind is not PlanKind.OFF
    assert best_of(pressed(model, hot(cheap=16.0, large=1.0))) == OFF


def test_prompt_lookup_stays_free_however_hot_the_cheap_pool():
    model = model_of(Truth(a0=0.7, lookup=True))
    kinds = (PlanKind.OFF, PlanKind.TWO_TIER)
    for price in PRICES:
        hot_model = pressed(model, hot(cheap=price))
        costs = {kind: cheapest(hot_model, kind, 4, 8, 16)[1] for kind in kinds}
        assert costs[PlanKind.TWO_TIER] < costs[PlanKind.OFF]


def test_heat_everywhere_alike_changes_little():
    """Only the hops weigh less."""
    model = model_of(Truth(hop_s=0.0))
    assert best_of(pressed(model, hot(5.0, 5.0))) == best_of(model)


def test_more_sessions_a_cheap_worker_cost_its_rows():
    truth = Truth(draft_s=lambda rows: max(0.1, rows / 40), a2=0.3)
    model = model_of(truth)
    crowded = pressed(model, {Tier.DRAFT: Pressure(crowd=4.0)})
    plan = Plan(PlanKind.TWO_TIER, 4, 4)
    assert crowded.propose_s(plan, 4) == pytest.approx(4 * 16 / 40 + truth.hop_s)
    assert model.propose_s(plan, 4) == pytest.approx(4 * 0.1 + truth.hop_s)


loads = st.builds(
    PoolLoad,
    util_frac=st.one_of(st.none(), st.floats(0, 1)),
    queue_s=st.floats(0, 100),
    step_s=st.floats(0.001, 10),
    kv_frac=st.floats(0, 1),
)


@given(loads)
def test_a_price_is_one_or_more_and_bounded(load):
    assert 1 <= price_of(load, SETTINGS) <= SETTINGS.max_price


def test_each_heat_raises_the_price():
    calm = PoolLoad(0.5, 0.2, 0.1, 0.5)
    base = price_of(calm, SETTINGS)
    for hotter in (
        PoolLoad(1.0, 0.2, 0.1, 0.5),
        PoolLoad(0.5, 0.5, 0.1, 0.5),
        PoolLoad(0.5, 0.2, 0.1, 0.99),
    ):
        assert price_of(hotter, SETTINGS) > base
    unknown = PoolLoad(None, 0.2, 0.1, 0.5)
    assert price_of(unknown, SETTINGS) == price_of(PoolLoad(1.0, 0.2, 0.1, 0.5), SETTINGS)
    assert price_of(PoolLoad(0.0, 5.0, 0.1), SETTINGS) == 1.0


def test_a_price_rises_fast_falls_slowly_and_ends_at_one():
    price = Price(SETTINGS)
    told = [price.follow(t, 4.0 if t < 20 else 1.0) for t in np.arange(0.0, 200.0, 0.5)]
    up = next(i for i, value in enumerate(told) if value > 3) * 0.5
    down = next(i for i, value in enumerate(told) if i > 40 and value < 3) * 0.5 - 20
    assert up < 4 < down
    assert told[-1] == 1.0
    steps = [a for a, b in itertools.pairwise(told) if a != b]
    assert len(steps) < 30


def test_noise_within_the_deadband_is_not_told():
    rng = np.random.default_rng(0)
    price = Price(SETTINGS)
    told = [price.follow(0.1 * i, 2.0 * float(np.exp(rng.normal(0, 0.3)))) for i in range(5_000)]
    assert len(set(told[1_000:])) <= 6


def test_what_heats_a_pool_at_each_return_comes_back_ever_more_seldom():
    """All or nothing: below price 2 everybody comes, and the pool is hot at once."""
    price = Price(SETTINGS)
    there = [True]
    for i in range(36_000):
        told = price.follow(0.1 * i, 6.0 if there[-1] else 1.0)
        there.append(told < 2.0)
    comebacks = [i / 10 for i, (a, b) in enumerate(itertools.pairwise(there)) if b and not a]
    gaps = np.diff(comebacks)
    assert 3 <= len(comebacks) <= 25
    assert gaps[-1] > 5 * gaps[0]
    assert np.mean(there[1_000:]) < 0.01


def test_a_calm_time_lets_it_forget():
    price = Price(SETTINGS)

    def heated(begin):
        for i in range(100):
            price.follow(begin + 0.1 * i, 6.0)
        return next(i for i in range(100_000) if price.follow(begin + 10 + 0.1 * i, 1.0) < 2.0)

    first, second = heated(0.0), heated(100.0)
    late = heated(100_000.0)
    assert second > 1.5 * first
    assert late < second


def test_patience_is_the_gain_of_the_round():
    model = model_of(TRUTH)
    plan = Plan(PlanKind.TWO_TIER, 4, 4)
    wait_s = unhurried(model, plan, 1)
    spent_s = model.cost(plan, 1) * model.tokens(plan, 1) + wait_s
    assert spent_s / model.tokens(plan, 1) == pytest.approx(model.cost(OFF, 1))
    assert unhurried(model, OFF, 1) == math.inf
    assert unhurried(pressed(model, hot(cheap=9.0)), plan, 1) == pytest.approx(wait_s)
    assert unhurried(pressed(model, hot(large=2.0)), plan, 1) > wait_s


def test_a_block_that_comes_between_steps_of_others_has_lost_half_a_step():
    model = model_of(TRUTH)
    plan = Plan(PlanKind.TWO_TIER, 4, 4)
    gain_s = (model.cost(OFF, 4) - model.cost(plan, 4)) * model.tokens(plan, 4)
    step_s = model.times[Tier.FULL].forward_s(4)
    assert unhurried(model, plan, 4) == pytest.approx(gain_s - step_s / 2)


def test_a_step_under_way_is_no_crowd():
    assert price_of(PoolLoad(1.0, 0.05, 0.1), SETTINGS) == 1.0
    assert price_of(PoolLoad(1.0, 0.15, 0.1), SETTINGS) == pytest.approx(2.0)


def served(cheap_workers, seconds, seed=0, sessions=32, patient=True):
    """A closed loop of sessions before a cheap pool that serves eight of them at once, each on
    its own large worker, and a real controller: changes of the kind in force, what was played
    by kind, the mean price."""
    truth = Truth(a0=0.7, a1=0.3, a2=0.3)
    fleet = Fleet(truth, seed, controller=(controller := Controller()))
    fleet.run(400, 1)
    rng = np.random.default_rng(seed)
    model, price = model_of(truth), Price(SETTINGS)
    free_at = [0.0] * cheap_workers
    now, due = 0.0, [(float(rng.random()), i) for i in range(sessions)]
    heapq.heapify(due)
    kinds, played, prices = [], Counter(), []
    busy_s = queue_s = 0.0
    while now < seconds:
        now, session = heapq.heappop(due)
        choice = controller.choose(1, ALL, float(rng.random()))
        plan = choice.plan
        if not choice.probe:
            kinds.append(plan.kind)
        begin = now
        if plan.kind is not PlanKind.OFF:
            worker = int(np.argmin(free_at))
            wait_s = max(free_at[worker] - now, 0.0)
            if patient and wait_s > choice.patience_s:
                plan = OFF
            else:
                own_s = model.propose_s(plan, 1)
                free_at[worker] = max(free_at[worker], now) + own_s / 8
                begin = now + wait_s + own_s
                queue_s += 0.05 * (wait_s - queue_s)
                busy_s += 0.05 * (own_s - busy_s)
        else:
            queue_s *= 0.95
        played[plan.kind] += 1
        full_s = model.cost(plan, 1) * model.tokens(plan, 1) - model.propose_s(plan, 1)
        heapq.heappush(due, (begin + full_s * float(np.exp(rng.normal(0, 0.1))), session))
        told = price.follow(now, price_of(PoolLoad(None, queue_s, busy_s), SETTINGS))
        prices.append(told)
        controller.under({Tier.DRAFT: Pressure(told), Tier.SLIM: Pressure(told)})
    changes = sum(a is not b for a, b in itertools.pairwise(kinds))
    return changes, played, float(np.mean(prices))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sessions", [8, 24, 48, 96])
def test_a_shared_cheap_pool_settles_however_many_share_it(sessions, seed):
    changes, played, _ = served(1, 1_000.0, seed, sessions)
    assert changes <= 12
    assert played[PlanKind.TWO_TIER] > 0


def test_a_pool_too_small_is_shared_by_some_and_the_rest_decode_plainly():
    _, played, price = served(1, 1_000.0, sessions=96)
    share = played[PlanKind.TWO_TIER] / played.total()
    assert 0.1 < share < 0.9
    assert price > served(8, 300.0)[2]


def test_all_at_once_would_use_the_small_pool_less():
    """What patience is for: without it only the plan in force can answer the heat."""
    shares = [
        played[PlanKind.TWO_TIER]
        for patient in (True, False)
        for _, played, _ in [served(1, 500.0, sessions=192, patient=patient)]
    ]
    assert shares[0] > 1.5 * shares[1]


def test_the_simulated_fleet_leaves_and_returns_with_the_heat_without_flapping():
    fleet = Fleet(Truth(a0=0.7, a1=0.3, a2=0.3), 3, controller=(controller := Controller()))
    fleet.run(300, 4)
    assert controller.plan.kind is PlanKind.TWO_TIER
    controller.under(hot(cheap=12.0))
    heated = fleet.run(200, 4)
    assert controller.plan.kind is PlanKind.OFF
    controller.under({})
    calm = fleet.run(200, 4)
    assert controller.plan.kind is PlanKind.TWO_TIER
    assert kind_changes(heated + calm) <= 4
