"""Laws of the choice of worker: loads even out, homes are kept, nobody wanders."""

from dataclasses import replace

import numpy as np
import pytest

from policies.balance import (
    BalanceSettings,
    Stake,
    WorkerLoad,
    answer_s,
    best,
    moves,
    sample,
    waits,
)

SETTINGS = BalanceSettings()
NOTHING = Stake()
CALM = WorkerLoad("calm", sessions=4, slots=16, hop_s=0.001, step_s=0.05, queue_s=0.0)


def at(name="other", **changes) -> WorkerLoad:
    return replace(CALM, worker_id=name, **changes)


@pytest.mark.parametrize(
    "worse",
    [
        {"sessions": 5},
        {"hop_s": 0.01},
        {"step_s": 0.06},
        {"queue_s": 0.02},
        {"kv_frac": 0.97},
    ],
)
def test_each_figure_counts(worse):
    stake = Stake(recompute_s=0.5)
    other = at("a", **worse)
    assert best([other, CALM], stake, SETTINGS) is CALM
    assert answer_s(other, stake, SETTINGS) > answer_s(CALM, stake, SETTINGS)


def test_unknown_use_is_taken_for_busy():
    known = [at(util_frac=util) for util in (0.0, 1.0)]
    idle_s, busy_s = (answer_s(each, NOTHING, SETTINGS) for each in known)
    assert idle_s < busy_s == answer_s(at(util_frac=None), NOTHING, SETTINGS)


def test_samples_are_two_different_workers_and_all_of_them_alike():
    rng = np.random.default_rng(0)
    counts = np.zeros(5)
    for draws in rng.random((5_000, 2)):
        found = sample(5, tuple(draws))
        assert len(set(found)) == 2
        counts[list(found)] += 1
    assert counts.min() > 0.9 * counts.max()
    assert sample(1, (0.9, 0.9)) == (0,)


def test_two_choices_keep_the_most_loaded_worker_far_nearer_the_mean_than_one():
    rng = np.random.default_rng(1)
    one, two = np.zeros(50, int), np.zeros(50, int)
    for draws in rng.random((50 * 20, 2)):
        one[int(draws[0] * 50)] += 1
        found = [at(f"{i:02}", sessions=int(two[i])) for i in sample(50, tuple(draws))]
        two[int(best(found, NOTHING, SETTINGS).worker_id)] += 1
    assert two.max() <= 20 + 4 < one.max()


def test_a_home_is_left_only_where_the_prefix_pays():
    hot = at("hot", queue_s=0.2)
    cheap, dear = Stake(0.1, calls_left=20), Stake(20.0, calls_left=20)
    assert moves(hot, CALM, cheap, SETTINGS)
    assert not moves(hot, CALM, dear, SETTINGS)
    assert not moves(hot, CALM, replace(cheap, calls_left=0.2), SETTINGS)


def test_like_workers_are_never_exchanged():
    for sessions in (1, 5, 16):
        home = at("home", sessions=sessions)
        other = at("other", sessions=sessions - 1)
        assert not moves(home, other, Stake(0.0, 100.0), SETTINGS)


def test_a_home_that_is_full_of_keys_is_no_reason_for_its_own_sessions_to_leave():
    home = at("home", kv_frac=1.0)
    assert not moves(home, at("other", kv_frac=0.5), Stake(0.5, 10.0), SETTINGS)


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_that_slows_down_is_left_once_and_nobody_comes_back_and_forth(seed):
    """30 sessions on three workers; the first becomes four times slower."""
    rng = np.random.default_rng(seed)
    homes = [i % 3 for i in range(30)]
    moved = []
    for tick in range(400):
        step = [0.05 * (4.0 if i == 0 and tick >= 50 else 1.0) for i in range(3)]
        for session in range(30):
            loads = [
                at(
                    str(i),
                    sessions=homes.count(i),
                    step_s=step[i] * float(np.exp(rng.normal(0, 0.04))),
                    queue_s=step[i] * max(homes.count(i) - 16, 0) / 16,
                )
                for i in range(3)
            ]
            home = homes[session]
            others = [load for i, load in enumerate(loads) if i != home]
            other = best([others[i] for i in sample(2, tuple(rng.random(2)))], NOTHING, SETTINGS)
            if moves(loads[home], other, Stake(0.3, 30.0), SETTINGS):
                homes[session] = int(other.worker_id)
                moved.append((tick, session))
    assert [tick for tick, _ in moved if tick < 50] == []
    assert homes.count(0) <= 3
    assert len(moved) <= 30 + 3
    assert [tick for tick, _ in moved if tick > 200] == []


def test_a_queue_is_joined_while_it_is_shorter_than_the_gain():
    assert waits(0.0, patience_s=-1.0)
    assert waits(0.1, patience_s=0.2)
    assert not waits(0.3, patience_s=0.2)
