"""Laws of the simulated fleet: right where the answer is known, the same for the same seed,
nothing lost, and in the hands of the real policies."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from cluster.advice.calibration import Places
from cluster.simulate.clock import Clock
from cluster.simulate.luck import Drawn, Replayed
from cluster.simulate.run import _Simulation, simulate
from cluster.simulate.setup import Traffic
from policies.autoscale import Autoscaler, Coupling, ScaleSettings
from policies.costs import Rates, expected_tokens
from policies.evidence import Rate
from policies.rounds import Outlook
from policies.vocabulary import PlanKind, Tier
from tests.simulate.setups import (
    HOP_S,
    OFF,
    SECONDS,
    THREE,
    TWO,
    alone,
    model,
    pool,
    setup,
    together,
)

CLOSED = Traffic(24, 1.0, 40, 60, closed=4)


def test_time_runs_in_order_and_never_back():
    clock, seen = Clock(), []
    for when in (3.0, 1.0, 2.0, 1.0):
        clock.at(when, lambda name: seen.append((clock.now, name)), (when, len(seen)))
    clock.at(2.5, lambda: clock.at(0.0, lambda: seen.append((clock.now, "late"))))
    clock.run(lambda: True)
    assert [at for at, _ in seen] == [1.0, 1.0, 2.0, 2.5, 3.0]


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.9, 1.0])
def test_given_rates_keep_as_many_tokens_as_e_says(rate):
    rng, drawn = random.Random(0), Drawn(Rates(rate, 0.1, 0.2), 8)
    for length in (1, 4, 8):
        kept = [drawn.kept(Rate.DRAFT_FULL, 0, 0, length, rng) for _ in range(20_000)]
        assert sum(kept) / len(kept) + 1 == pytest.approx(expected_tokens(rate, length), rel=0.02)


def test_measured_answers_are_met_place_by_place():
    drafted, slim = Outlook((3, 0, 5), (2, 0, 1)), Outlook((9, 9, 9), (4, 4, 4))
    luck = Replayed([Places(7, 3, drafted, None, slim, (1, 0, 0))])
    rng = random.Random(0)
    assert [luck.drafted(0, place, 4) for place in range(4)] == [(3, 1), (0, 0), (4, 0), (3, 1)]
    assert [luck.kept(Rate.DRAFT_FULL, 0, at, 4, rng) for at in range(3)] == [2, 0, 1]
    assert luck.kept(Rate.DRAFT_FULL, 0, 0, 1, rng) == 1
    assert luck.kept(Rate.SLIM_FULL, 5, 1, 8, rng) == 4


@pytest.mark.parametrize("plan", [TWO, THREE], ids=lambda plan: plan.kind)
def test_one_worker_of_all_tiers_plays_the_same_rounds_with_fewer_hops(plan):
    apart = simulate(setup(plan, Traffic(60, 1.0, 40, 200, closed=1)), "apart")
    here = simulate(together(plan, Traffic(60, 1.0, 40, 200, closed=1)), "here")
    rounds = model().tokens(plan, 1)
    # Apart a round has two hops; here two rounds share one.
    saved = 1.5 * HOP_S / rounds
    assert apart.token_s.p50 - here.token_s.p50 == pytest.approx(saved, rel=0.3)
    assert here.full_rows_per_token == pytest.approx(apart.full_rows_per_token, rel=0.05)


def test_sessions_of_one_worker_share_its_passes():
    one = simulate(together(TWO, Traffic(8, 1.0, 40, 100, closed=1)), "one")
    eight = simulate(together(TWO, Traffic(64, 1.0, 40, 100, closed=8)), "eight")
    assert eight.tokens_per_s > 4 * one.tokens_per_s


@pytest.mark.parametrize("plan", [OFF, TWO, THREE], ids=lambda plan: plan.kind)
def test_one_session_takes_what_the_cost_model_says(plan):
    found = simulate(setup(plan, Traffic(60, 1.0, 40, 200, closed=1)), "one")
    predicted = model().cost(plan, 1)
    assert found.token_s.p50 == pytest.approx(predicted, rel=0.06)


def test_sessions_that_share_steps_decode_side_by_side():
    one = simulate(setup(OFF, Traffic(8, 1.0, 40, 100, closed=1)), "one")
    eight = simulate(setup(OFF, Traffic(64, 1.0, 40, 100, closed=8)), "eight")
    assert eight.tokens_per_s > 6 * one.tokens_per_s


def test_the_same_seed_gives_the_same_figures_and_another_does_not():
    def figures(seed):
        found = simulate(setup(None, CLOSED, seed=seed), "x")
        return dataclasses.replace(found, cpu_s=0.0)

    assert figures(1) == figures(1)
    assert figures(1) != figures(2)


@pytest.mark.parametrize("plan", [OFF, TWO, THREE, None])
def test_every_request_gets_all_its_tokens_and_nothing_is_left(plan):
    fleet = setup(
        plan,
        Traffic(60, 20.0, 40, 30, spread=0.5),
        pool(Tier.FULL, workers=3),
        pool(Tier.DRAFT, Tier.SLIM, workers=2),
    )
    played = _Simulation(fleet)
    played.run()
    assert played.finished == 60
    assert not played.desk.running
    assert not played.desk.waiting
    assert played.desk.tokens == sum(played.tokens_asked)
    for seat in (*played.desk.large, *played.desk.cheap):
        assert not seat.lane.homes
        assert not seat.lane.waiting
        assert not seat.proposing


def test_a_cheap_pool_that_is_paid_for_costs():
    without = simulate(alone(setup(OFF, CLOSED)), "large alone")
    beside = simulate(setup(OFF, CLOSED), "beside an idle cheap pool")
    assert without.cost_per_mtok is not None
    assert beside.cost_per_mtok == pytest.approx(2 * without.cost_per_mtok)
    unknown = alone(setup(OFF, CLOSED, large=pool(Tier.FULL, price=None)))
    assert simulate(unknown, "no price").cost_per_mtok is None


def test_the_controller_finds_speculation_that_pays_and_leaves_what_does_not():
    traffic = Traffic(120, 1.0, 20, 200, closed=2)
    good = simulate(setup(None, traffic, rates=Rates(0.9, 0.9, 0.5)), "good")
    assert good.shares["two_tier"] > 0.7
    bad = simulate(setup(None, traffic, rates=Rates(0.05, 0.05, 0.05)), "bad")
    assert bad.shares["off"] > 0.8
    assert bad.tokens_per_s > 0.95 * simulate(setup(OFF, traffic), "off").tokens_per_s


def test_prefixes_that_find_no_room_are_computed_again():
    tight = setup(OFF, Traffic(40, 1.0, 100, 60, closed=8), large=pool(Tier.FULL, capacity=700))
    roomy = setup(OFF, Traffic(40, 1.0, 100, 60, closed=8), large=pool(Tier.FULL, capacity=7e4))
    squeezed, free = simulate(tight, "tight"), simulate(roomy, "roomy")
    assert squeezed.evicted > 0 == free.evicted
    assert squeezed.tokens == free.tokens
    assert squeezed.tokens_per_s < free.tokens_per_s


def test_a_hot_cheap_pool_is_skipped_and_the_plan_does_not_flap():
    """96 sessions of six large workers before one cheap worker with four slots."""
    fleet = setup(
        None,
        Traffic(600, 1.0, 20, 120, closed=96),
        pool(Tier.FULL, workers=6),
        pool(Tier.DRAFT, Tier.SLIM, workers=1, slots=4),
        rates=Rates(0.85, 0.85, 0.3),
    )
    found = simulate(fleet, "hot")
    plain = simulate(alone(dataclasses.replace(fleet, plan=OFF)), "off")
    assert found.tokens_per_s > 0.97 * plain.tokens_per_s
    late = found.moments[len(found.moments) // 3 :]
    prices = [moment.price["cheap"] for moment in late]
    ups = sum(b > a for a, b in itertools.pairwise(prices))
    assert ups <= 6


def scaled(**more):
    return setup(
        TWO,
        Traffic(500, 8.0, 20, 60, swing=0.9, period_s=40.0),
        pool(Tier.FULL, workers=1, slots=4),
        pool(Tier.DRAFT, Tier.SLIM, workers=1, slots=4),
        scaler=Autoscaler(
            ScaleSettings(0, 8, up_s=1.0, down_s=6.0),
            ScaleSettings(1, 8, up_s=1.0, down_s=6.0),
            Coupling(),
        ),
        start_s=2.0,
        **more,
    )


def test_pools_follow_the_load_and_a_drained_worker_loses_nothing():
    played = _Simulation(scaled())
    played.run()
    sizes = [moment.workers["large"] for moment in played.keeper.moments]
    assert max(sizes) >= 3
    assert sizes.index(max(sizes)) < len(sizes) - sizes[::-1].index(min(sizes[len(sizes) // 2 :]))
    assert min(sizes[sizes.index(max(sizes)) :]) < max(sizes)
    assert played.desk.tokens == sum(played.tokens_asked)
    assert played.desk.moved > 0


def test_without_a_cheap_worker_sessions_are_served_plainly():
    found = simulate(setup(None, CLOSED, cheap=pool(Tier.DRAFT, Tier.SLIM, workers=0)), "zero")
    assert found.shares["off"] == 1.0
    assert found.tokens == 24 * 60


def test_steps_cost_what_their_times_say():
    """40 rows of a prompt, then 4 tokens a call: one forward each."""
    found = simulate(alone(setup(OFF, Traffic(1, 1.0, 40, 81, closed=1))), "one")
    forwards, calls = 81, 1 + 80 / 4
    assert found.span_s == pytest.approx(forwards * SECONDS[Tier.FULL] + calls * 0.001)
    assert found.ttft_s.p50 == pytest.approx(SECONDS[Tier.FULL] + 0.001)
    assert set(found.shares) == {PlanKind.OFF}
