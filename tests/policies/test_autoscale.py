"""Laws of autoscaling: bounds, up fast and down slow, the coupled ratio, zero, no oscillation."""

import itertools
import math

import numpy as np
import pytest

from policies.autoscale import (
    Autoscaler,
    Coupling,
    PoolScale,
    PoolStats,
    Scale,
    ScaleSettings,
)

SETTINGS = ScaleSettings(min_workers=1, max_workers=40, target_frac=0.7, up_s=5, down_s=60)
CHEAP = ScaleSettings(min_workers=0, max_workers=40, target_frac=0.7, up_s=5, down_s=60)
BOTH = Autoscaler(CHEAP, SETTINGS, Coupling())
TICK_S = 2.0


def pool(workers, work, waiting=0) -> PoolStats:
    """That has so much work of its slots' worth."""
    used = min(work / workers, 1.0) if workers else 0.0
    return PoolStats(workers, used, 1.0, slots=16, waiting=waiting)


def played(demand, ticks, start=(1, 1), ratio=0.5, ready_after=5):
    """Wanted (cheap, large) at each tick, where workers are ready some ticks later and the cheap
    pool has `ratio` of the large one's work. `demand(tick)` is in workers of the large pool."""
    state = Scale(PoolScale(start[0]), PoolScale(start[1]))
    wanted = [start] * ready_after
    for tick in range(ticks):
        ready = [min(sizes) for sizes in zip(wanted[-ready_after], wanted[-1], strict=True)]
        work = demand(tick)
        waiting = max(work - ready[1], 0.0)
        large = pool(ready[1], work, int(16 * waiting))
        state = BOTH.decide(state, tick * TICK_S, pool(ready[0], ratio * work), large)
        wanted.append((state.cheap.wanted, state.large.wanted))
    return wanted[ready_after:]


def turns(sizes) -> int:
    """How often a series goes up after having gone down, or the other way."""
    steps = [b - a for a, b in itertools.pairwise(sizes) if a != b]
    return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize("work", [0.4, 3.0, 11.0, 24.0])
def test_a_steady_load_ends_at_its_target_without_a_turn(work):
    sizes = played(lambda _: work, 200)
    cheap, large = sizes[-1]
    assert large == math.ceil(work / 0.7)
    assert cheap == math.ceil(0.5 * work / 0.7)
    assert turns([size for _, size in sizes]) == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_noisy_load_makes_no_oscillation(seed):
    rng = np.random.default_rng(seed)
    loads = 10 * np.exp(rng.normal(0, 0.15, 600))
    sizes = played(lambda tick: float(loads[tick]), 600)[100:]
    assert turns([size for _, size in sizes]) <= 6
    assert turns([size for size, _ in sizes]) <= 6


def test_up_is_fast_and_down_is_slow():
    sizes = played(lambda tick: 12.0 if 50 <= tick < 100 else 4.0, 250)
    large = [size for _, size in sizes]
    up = next(i for i, size in enumerate(large) if size >= 18)
    down = next(i for i, size in enumerate(large) if i > 100 and size < large[99])
    assert (up - 50) * TICK_S <= 60
    assert (down - 100) * TICK_S >= SETTINGS.down_s


def test_a_short_lull_does_not_cost_a_worker():
    lull = range(100, 120)
    sizes = played(lambda tick: 2.0 if tick in lull else 8.0, 200)
    assert {size for _, size in sizes[80:]} == {12}


def test_down_goes_to_the_most_that_the_window_wanted():
    state = Scale(PoolScale(10), PoolScale(10))
    for tick in range(40):
        work = 5.0 if tick == 20 else 2.0
        state = BOTH.decide(state, tick * TICK_S, pool(10, 2.0), pool(10, work))
        if state.large.wanted != 10:
            break
    assert state.large.wanted == math.ceil(5.0 / 0.7)


def test_the_cheap_pool_grows_with_the_large_one_not_after_it():
    """Nothing of the new load has reached it yet."""
    state = Scale(PoolScale(4), PoolScale(8), ratio=2.8 / 8)
    calm = pool(4, 4 * 0.7)
    for tick in range(4):
        state = BOTH.decide(state, tick * TICK_S, calm, pool(8, 8, waiting=80))
    assert state.large.wanted == 16
    assert state.cheap.wanted == math.ceil(16 * 2.8 / 8)


def test_the_ratio_is_bounded():
    scaler = Autoscaler(CHEAP, SETTINGS, Coupling(max_ratio=0.5))
    state = Scale(PoolScale(2), PoolScale(4))
    for tick in range(20):
        state = scaler.decide(state, tick * TICK_S, pool(2, 2, waiting=200), pool(4, 2.0))
    assert state.cheap.wanted == 2


def test_an_unused_cheap_pool_goes_to_zero_and_wakes_with_the_large_one():
    sizes = played(lambda tick: 0.2 if tick < 100 else 6.0, 200, start=(2, 2), ratio=0.0)
    assert sizes[99][0] == 0
    assert sizes[99][1] == 1
    assert max(size for size, _ in sizes[100:]) >= 1


def test_a_long_queue_gets_a_worker_whatever_the_work():
    state = Scale(PoolScale(1), PoolScale(2))
    for tick in range(5):
        queued = PoolStats(2, 0.5, 0.5, slots=16, queue_s=3.0)
        state = BOTH.decide(state, tick * TICK_S, pool(1, 0.5), queued)
    assert state.large.wanted == 3


@pytest.mark.parametrize("work", [0.0, 1e6])
def test_bounds_hold(work):
    sizes = played(lambda _: work, 300)
    assert all(1 <= large <= 40 and 0 <= cheap <= 40 for cheap, large in sizes)
    assert sizes[-1][1] == (1 if work == 0 else 40)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"min_workers": 3, "max_workers": 2}, "min_workers"),
        ({"min_workers": -1}, "min_workers"),
        ({"target_frac": 0.0}, "target_frac"),
        ({"max_queue_s": -1.0}, "max_queue_s"),
        ({"down_s": float("nan")}, "down_s"),
    ],
)
def test_illegal_settings_are_named(fault, named):
    with pytest.raises(ValueError, match=named):
        ScaleSettings(**fault)
