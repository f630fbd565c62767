"""Laws of prices by tier: what pools cost their tiers, and where there is no choice, nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.pressure import PoolLoad, Pressure, PressureSettings
from policies.prices import PoolLook, Prices
from policies.vocabulary import Tier

SETTINGS = PressureSettings()
CHEAP, LARGE, ALL = (
    frozenset({Tier.DRAFT, Tier.SLIM}),
    frozenset({Tier.FULL}),
    frozenset(Tier),
)
CALM, HOT = PoolLoad(0.5, 0.0, 0.1), PoolLoad(1.0, 1.0, 0.1)


def after(pools, seconds=60, prices=None):
    prices = prices or Prices(SETTINGS)
    told = {}
    for second in range(seconds):
        told = prices.follow(float(second), pools)
    return told


def test_a_hot_pool_makes_its_own_tiers_dear_and_no_others():
    told = after({"cheap": PoolLook(CHEAP, HOT), "large": PoolLook(LARGE, CALM)})
    assert told[Tier.FULL] == Pressure()
    assert told[Tier.DRAFT] == told[Tier.SLIM]
    assert told[Tier.DRAFT].price > 2
    told = after({"cheap": PoolLook(CHEAP, CALM), "large": PoolLook(LARGE, HOT)})
    assert told[Tier.FULL].price > 2
    assert told[Tier.DRAFT] == Pressure()


loads = st.builds(
    PoolLoad,
    util_frac=st.one_of(st.none(), st.floats(0, 1)),
    queue_s=st.floats(0, 100),
    step_s=st.floats(0.001, 10),
    kv_frac=st.floats(0, 1),
)


@given(st.lists(st.tuples(loads, st.floats(0.01, 100)), min_size=1, max_size=4))
def test_workers_that_all_host_the_same_are_under_none(found):
    prices = Prices(SETTINGS)
    for second in range(10):
        looks = {str(i): PoolLook(ALL, load, crowd) for i, (load, crowd) in enumerate(found)}
        assert prices.follow(float(second), looks) == {}


def test_a_tier_costs_what_it_costs_where_it_is_cheapest():
    pools = {
        "hot": PoolLook(CHEAP, HOT),
        "calm": PoolLook(CHEAP, CALM),
        "large": PoolLook(LARGE, CALM),
    }
    assert after(pools)[Tier.DRAFT].price == 1.0


def test_a_crowd_is_told_to_half_octaves_and_fulls_own_not_at_all():
    for crowd in (0.9, 1.0, 1.1):
        told = after(
            {"c": PoolLook(CHEAP, CALM, crowd), "l": PoolLook(LARGE, CALM, 3.0)}, seconds=1
        )
        assert (told[Tier.DRAFT].crowd, told[Tier.FULL].crowd) == (1.0, 1.0)
    assert after({"c": PoolLook(CHEAP, CALM, 4.1), "l": PoolLook(LARGE, CALM)})[
        Tier.SLIM
    ].crowd == pytest.approx(4.0)


def test_a_pool_that_went_begins_anew_when_it_comes_back():
    prices = Prices(SETTINGS)
    both = {"cheap": PoolLook(CHEAP, HOT), "large": PoolLook(LARGE, CALM)}
    after(both, prices=prices)
    assert prices.told["cheap"] > 2
    prices.follow(61.0, {"large": PoolLook(LARGE, CALM)})
    assert set(prices.told) == {"large"}
    prices.follow(62.0, both)
    assert prices.told["cheap"] == 1.0
