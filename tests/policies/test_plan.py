"""Laws of the controller: never slower than plain decoding, near the best, calm, and awake."""

import numpy as np
import pytest

from policies.estimates import TierTiming
from policies.evidence import Rate, Verdicts
from policies.plan import Controller, Reason
from policies.plan_settings import ControllerSettings
from policies.vocabulary import Plan, PlanKind, Tier
from tests.policies.fleet import ALL, OFF, Fleet, Truth, cost, kind_changes, model_of

LOAD = 4
TWO = Plan(PlanKind.TWO_TIER, 4, 4)
THREE = Plan(PlanKind.THREE_TIER, 4, 8)
PLANS = [
    OFF,
    *(Plan(PlanKind.TWO_TIER, g, g) for g in range(1, 9)),
    *(Plan(PlanKind.THREE_TIER, g, n) for g in range(1, 9) for n in (4, 6, 8, 10, 12, 16)),
]
USELESS_DRAFT = Truth(a0=0.0, a1=0.0, a2=0.5)
SLOW_SLIM = Truth(a0=0.1, slim_s=lambda rows: 3.0 + 0.03 * rows)


def controlled(truth, seed, initial=OFF) -> Fleet:
    return Fleet(truth, seed, controller=Controller(ControllerSettings(initial=initial)))


def plain(truth, load=LOAD) -> float:
    return model_of(truth).cost(OFF, load)


def last_round_of(rounds, kind) -> int:
    return max((i + 1 for i, r in enumerate(rounds) if r.plan.kind is kind and not r.probe))


def share(rounds, kind) -> float:
    return sum(r.plan.kind is kind for r in rounds) / len(rounds)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("truth", "initial", "within"),
    [(USELESS_DRAFT, TWO, 60), (USELESS_DRAFT, THREE, 80), (SLOW_SLIM, THREE, 20)],
    ids=["useless draft", "useless draft under three tiers", "slow slim"],
)
def test_a_losing_start_is_left_fast(truth, initial, within, seed):
    rounds = controlled(truth, seed, initial).run(500, LOAD)
    assert next(i for i, r in enumerate(rounds) if r.plan.kind is PlanKind.OFF) <= within
    assert share(rounds[within:], initial.kind) < 0.1
    assert cost(rounds) <= 1.05 * plain(truth)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("truth", [USELESS_DRAFT, SLOW_SLIM], ids=["useless draft", "slow slim"])
def test_speculation_that_cannot_pay_costs_next_to_nothing_to_find_out(truth, seed):
    assert cost(controlled(truth, seed).run(500, LOAD)) <= 1.03 * plain(truth)


@pytest.mark.parametrize("load", [1, 4])
@pytest.mark.parametrize("change", ["slim_slow", "draft_useless"])
def test_a_plan_that_begins_to_lose_is_left_within_200_rounds(change, load):
    truth = Truth()
    fleet = controlled(truth, 1, THREE)
    fleet.run(1_200 // load, load)
    if change == "slim_slow":
        truth.slim_s, truth.a0 = (lambda rows: 3.0 + 0.03 * rows), 0.1
        lost = PlanKind.THREE_TIER
    else:
        truth.a0, truth.a1, truth.a2 = 0.0, 0.0, 0.3
        lost = PlanKind.TWO_TIER
    after = fleet.run(1_600 // load, load)
    assert share(after[200:], PlanKind.OFF) > 0.8
    assert share(after[200:], lost) < 0.15
    assert cost(after[200:]) < 1.04 * plain(truth, load)


@pytest.mark.parametrize(
    ("truth", "load"),
    [
        (Truth(), 1),
        (Truth(), 4),
        (Truth(a0=0.85, a1=0.85, a2=0.5), 1),
        (Truth(a0=0.4, a1=0.8, a2=0.95, hop_s=0.5), 1),
        (Truth(a0=0.8, hit_frac=0.5, lookup=True, a2=0.3), 4),
    ],
)
def test_it_ends_near_the_best_plan(truth, load):
    model = model_of(truth)
    best = min(model.cost(plan, load) for plan in PLANS)
    fleets = [controlled(truth, seed) for seed in range(3)]
    rounds = [fleet.run(1_600 // load, load) for fleet in fleets]
    final = [model.cost(fleet.controller.plan, load) for fleet in fleets]
    assert np.mean(final) <= 1.05 * best
    assert np.mean([cost(each) for each in rounds]) <= 1.10 * best
    assert np.mean([cost(each[400:]) for each in rounds]) <= 1.08 * best


def test_as_load_rises_slim_goes_first_then_speculation_and_both_come_back():
    """Full is bound by computing from 8 rows up, slim from 16: shared, they are the same chip."""
    truth = Truth(
        a0=0.75,
        a1=0.85,
        a2=0.93,
        slim_s=lambda rows: 0.25 * max(1.0, rows / 6),
        full_s=lambda rows: max(1.0, 0.5 + rows / 20),
    )
    fleet = controlled(truth, 3)
    kinds = []
    for load in (1, 2, 4, 8, 16, 32, 16, 8, 4, 2, 1):
        rounds = fleet.run(100 + 400 // load, load)
        late = rounds[len(rounds) // 2 :]
        assert cost(late) <= 1.08 * plain(truth, load), load  # 3 % is its noise
        kinds.append(max(PlanKind, key=lambda kind, late=late: share(late, kind)))
    order = {PlanKind.THREE_TIER: 0, PlanKind.TWO_TIER: 1, PlanKind.OFF: 2}
    ranks = [order[kind] for kind in kinds]
    assert ranks[:6] == sorted(ranks[:6])
    assert set(ranks[:6]) == {0, 1, 2}
    assert ranks[6:] == sorted(ranks[6:], reverse=True)
    assert ranks[-1] == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("a0", [0.15, 0.25, 0.7])
def test_noise_makes_no_oscillation(a0, seed):
    """Also where two kinds cost nearly the same."""
    truth = Truth(a0=a0, a1=a0, a2=0.5)
    assert kind_changes(controlled(truth, seed).run(500, LOAD)) <= 8


def test_a_change_of_workload_is_followed_both_ways():
    truth = Truth(a0=0.8, a1=0.3, a2=0.3)
    fleet = controlled(truth, 5)
    fleet.run(200, LOAD)
    assert fleet.controller.plan.kind is PlanKind.TWO_TIER
    truth.a0 = 0.1
    bad = fleet.run(400, LOAD)
    assert last_round_of(bad, PlanKind.TWO_TIER) <= 400
    assert fleet.controller.plan.kind is PlanKind.OFF
    truth.a0 = 0.8
    good = fleet.run(400, LOAD)
    assert last_round_of(good, PlanKind.OFF) <= 800
    assert fleet.controller.plan.kind is PlanKind.TWO_TIER


@pytest.mark.parametrize("load", [1, 4])
def test_a_draft_that_seldom_proposes_is_not_slower_than_off(load):
    truth = Truth(a0=0.8, hit_frac=0.2, lookup=True, a1=0.3, a2=0.3)
    rounds = controlled(truth, 1, TWO).run(2_000 // load, load)
    assert cost(rounds) <= 1.02 * plain(truth, load)


def test_a_draft_that_never_proposes_is_left():
    truth = Truth(hit_frac=0.0, hop_s=0.3)
    fleet = controlled(truth, 1, TWO)
    fleet.run(50, LOAD)
    assert fleet.controller.plan.kind is not PlanKind.TWO_TIER


@pytest.mark.parametrize("seed", range(2))
def test_a_machine_that_slows_down_as_a_whole_changes_no_plan(seed):
    truth = Truth(a2=0.5)
    fleet = controlled(truth, seed)
    fleet.run(200, LOAD)
    truth.speed = 3.0
    assert kind_changes(fleet.run(200, LOAD)) <= 2
    assert fleet.controller.plan.kind is PlanKind.TWO_TIER


def test_probes_are_rare_where_they_are_dear_and_never_end():
    truth = Truth(a0=0.0, a1=0.0, a2=0.0, slim_s=lambda rows: 10.0)
    rounds = controlled(truth, 2).run(1_500, LOAD)
    probes = [r for r in rounds[1_000:] if r.probe]
    dear = [r for r in probes if r.plan.kind is PlanKind.THREE_TIER]
    assert 0 < len(probes) < 0.15 * len(rounds)
    assert len(dear) < 0.005 * len(rounds)
    assert cost(rounds[1_000:]) < 1.02 * plain(truth)


def test_a_probe_that_is_not_played_makes_the_next_no_rarer():
    """Else a server whose first requests are short takes the longer to know its draft."""

    def chosen(*, refuse: bool) -> int:
        controller, rng = Controller(), np.random.default_rng(3)
        count = 0
        for _ in range(4_000):
            for _ in range(2):
                controller.saw_step(TierTiming(Tier.FULL, 0.5, 1, 1))
            choice = controller.choose(LOAD, ALL, float(rng.random()))
            count += choice.probe
            if choice.probe and refuse:
                controller.refused(choice)
        return count

    assert chosen(refuse=True) > 4 * chosen(refuse=False)


def test_the_same_past_and_draws_give_the_same_choices():
    def played():
        rounds = controlled(Truth(), 7).run(150, LOAD)
        return [(r.plan, r.reason, r.probe) for r in rounds]

    assert played() == played()


def test_nothing_is_played_whose_tiers_are_missing():
    fleet = controlled(Truth(), 1, THREE)
    fleet.run(100, LOAD)
    rng = np.random.default_rng(1)
    for present in ({Tier.FULL}, {Tier.FULL, Tier.DRAFT}, {Tier.FULL, Tier.SLIM}, ALL):
        for _ in range(100):
            choice = fleet.controller.choose(LOAD, frozenset(present), float(rng.random()))
            assert choice.plan.kind.tiers <= present
            assert set(choice.costs) <= {k for k in PlanKind if k.tiers <= present}


def test_the_start_is_in_force_until_there_is_evidence():
    controller = Controller(ControllerSettings(initial=TWO))
    choice = controller.choose(1, ALL, 0.999)
    assert (choice.plan, choice.reason, choice.probe) == (TWO, Reason.INITIAL, False)
    assert choice.costs == {}


def test_times_that_came_after_the_last_search_wait_for_the_next_one():
    controller = Controller()
    controller.saw_step(TierTiming(Tier.FULL, 0.5, 1, 1))
    assert controller.choose(1, ALL, 0.999).costs.keys() == {PlanKind.OFF}
    for tier in (Tier.DRAFT, Tier.SLIM):
        controller.saw_step(TierTiming(tier, 0.1, 1, 1))
    assert controller.choose(4, ALL, 0.999).costs.keys() == {PlanKind.OFF}
    for _ in range(20):
        controller.saw_step(TierTiming(Tier.FULL, 0.5, 1, 1))
    assert controller.choose(4, ALL, 0.999).costs.keys() == {
        PlanKind.OFF,
        PlanKind.TWO_TIER,
        PlanKind.THREE_TIER,
    }


def test_prefill_says_nothing_of_a_decoding_step():
    controller = Controller()
    controller.saw_step(TierTiming(Tier.FULL, 50.0, 1, 2_000))
    assert controller.choose(1, ALL, 0.999).costs == {}
    controller.saw_step(TierTiming(Tier.FULL, 0.5, 1, 1))
    for _ in range(20):
        controller.saw_verdicts(Verdicts(Rate.DRAFT_FULL, 1, 1, 1, 1))
    assert controller.choose(1, ALL, 0.999).costs[PlanKind.OFF] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "fault",
    [
        {"initial": Plan(PlanKind.VIA)},
        {"margin": 1.0},
        {"leave_margin": -0.1},
        {"shape_margin": float("nan")},
        {"probe_budget": 0.0},
        {"probe_cap": 0.6},
        {"learn_frac": 0.0},
        {"probe_floor": 0.1},
        {"max_doublings": -1},
        {"refresh": 0},
        {"max_gamma": 0},
        {"max_block": 0},
    ],
)
def test_illegal_settings_are_named(fault):
    with pytest.raises(ValueError, match=next(iter(fault))):
        ControllerSettings(**fault)
