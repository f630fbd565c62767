"""Laws of a pool's hardware in the config: what it becomes, on its own and on a fallback."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cluster.config import ConfigError, parse
from cluster.config_pools import PoolConfig
from policies.placing import Demand

L4 = {"device": "cuda", "accelerator": "L4", "num_cpus": 2}


def pool(**keys: Any) -> PoolConfig:
    pools = {"cheap": {"tiers": ["draft"], **keys}, "large": {"tiers": ["full"]}}
    return parse({"pools": pools}, "file.yaml").pools["cheap"]


def ranks(**keys: Any) -> PoolConfig:
    return parse({"pools": {"large": {"tiers": ["full"], **keys}}}, "file.yaml").pools["large"]


def test_accelerator_is_short_for_rays_label():
    assert pool(**L4, num_gpus=1).demand == Demand(
        {"CPU": 2, "GPU": 1}, {"ray.io/accelerator-type": "L4"}
    )
    both = pool(**L4, num_gpus=1, label_selector={"zone": "in(a,b)"})
    assert both.selector == {"ray.io/accelerator-type": "L4", "zone": "in(a,b)"}


def test_ranks_are_processes_of_one_demand():
    split = ranks(tp=4, one_node=True, num_cpus=8, resources={"nvlink": 1})
    assert split.demand == Demand({"CPU": 8, "nvlink": 1}, {}, 4, one_node=True)


@pytest.mark.parametrize(
    ("keys", "share"),
    [
        ({"num_gpus": 1}, None),
        ({"num_gpus": 2}, None),
        ({"num_gpus": 0.5}, 0.5),
        ({"num_gpus": 0.5, "memory_frac": 0.4}, 0.4),
        ({"num_gpus": 0.6, "memory_frac": 1}, None),
        ({"num_gpus": 1, "memory_frac": 0.8}, 0.8),
    ],
)
def test_who_shares_a_card_is_bound_to_its_share(keys: dict[str, Any], share: float | None):
    assert pool(**L4, **keys).memory_share == share


def test_pool_on_cpus_has_no_card_to_bound():
    assert pool(num_gpus=0.5).memory_share is None


def test_fallback_names_labels_anew_and_keeps_what_it_leaves_out():
    first, second, third = pool(
        **L4,
        num_gpus=0.5,
        memory_frac=0.4,
        label_selector={"zone": "a"},
        slots=5,
        fallback=[
            {"accelerator": "A10G", "num_gpus": 1},
            {"device": "cpu", "num_cpus": 16, "resources": {"avx512": 1}},
        ],
    ).ways
    assert first.selector == {"ray.io/accelerator-type": "L4", "zone": "a"}
    assert second.demand == Demand({"CPU": 2, "GPU": 1}, {"ray.io/accelerator-type": "A10G"})
    assert (second.device, second.memory_share) == ("cuda", 0.4)
    assert third.demand == Demand({"CPU": 16, "avx512": 1}, {})
    assert (third.device, third.memory_share) == ("cpu", None)
    assert {way.slots for way in (first, second, third)} == {5}
    assert {way.fallback for way in (first, second, third)} == {()}


def test_fallback_may_have_a_price_of_its_own():
    first, second, third = pool(price_per_hour=2, fallback=[{"price_per_hour": 0.5}, {}]).ways
    assert [way.price_per_hour for way in (first, second, third)] == [2, 0.5, 2]


def test_pool_without_a_fallback_has_one_way():
    alone = pool(**L4, num_gpus=1)
    assert alone.ways == (alone,)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"accelerator": "L5", "num_gpus": 1}, "cheap.accelerator: Ray knows no L5, only A100, "),
        ({"accelerator": "L5", "num_gpus": 1}, "for another card give label_selector"),
        ({"accelerator": "L4"}, "cheap: accelerator L4 needs num_gpus above 0"),
        (
            {
                "accelerator": "L4",
                "num_gpus": 1,
                "label_selector": {"ray.io/accelerator-type": "T"},
            },
            "cheap: give accelerator or the label ray.io/accelerator-type, not both",
        ),
        ({"label_selector": {"zone": "-a"}}, "cheap.label_selector: Invalid label selector value"),
        ({"label_selector": {"zo ne": "a"}}, "cheap.label_selector: Invalid label key"),
        ({"num_gpus": 1.5}, "cheap: num_gpus 1.5 must be a whole number or below 1"),
        ({"num_cpus": "all"}, "cheap.num_cpus: must be a number of at least 0.0001, or auto"),
        ({"fallback": [{"num_cpus": -1}]}, "fallback.0.num_cpus: must be a number of at least"),
        # Ray refuses finer amounts, and a pool would try to start its worker for ever.
        ({"num_cpus": 0.00001}, "cheap.num_cpus: must be a number of at least 0.0001"),
        ({"num_gpus": 0.00001}, "num_gpus 1e-05 must be 0 or at least 0.0001"),
        ({"resources": {"gold": 0.00001}}, "resources.gold: Input should be greater than or equal"),
        ({"resources": {"memory": 1e9}}, "cheap.resources: memory is Ray's own; only custom"),
        ({"resources": {" ": 1}}, "cheap.resources: a resource needs a name"),
        ({"resources": {"GPU": 1}}, "cheap.resources: CPU and GPU are num_cpus and num_gpus"),
        ({"memory_frac": 0.5}, "cheap: memory_frac is for device cuda"),
        ({"memory_frac": 0}, "cheap.memory_frac: Input should be greater than 0"),
        (
            {"device": "cuda", "num_gpus": 0.3, "memory_frac": 0.4},
            "memory_frac 0.4 must be at most 0.333333, since num_gpus 0.3 lets 3 workers share",
        ),
        ({"fallback": [{"device": "cuda"}]}, "cheap: fallback.0: device cuda needs num_gpus"),
        ({"fallback": [{}, {"num_gpus": 1.5}]}, "cheap: fallback.1: num_gpus 1.5 must be"),
        ({"fallback": [{"accelerator": "L5"}]}, "cheap.fallback.0.accelerator: Ray knows no L5"),
        ({"replicas": True}, "cheap.replicas: Input should be a valid integer"),
        ({"replicas": 100_000}, "cheap.replicas: Input should be less than or equal to 10000"),
        ({"slots": 10**8}, "cheap.slots: Input should be less than or equal to 65536"),
        ({"fallback": [{"slots": 3}]}, "cheap.fallback.0.slots: no such key here"),
        (
            {"price_per_hour": -1},
            "cheap.price_per_hour: Input should be greater than or equal to 0",
        ),
        ({"price_per_hour": "2 USD"}, "cheap.price_per_hour: Input should be a valid number"),
        ({"price_per_hour": math.inf}, "cheap.price_per_hour: Input should be a finite number"),
    ],
)
def test_impossible_hardware_is_refused_with_its_key(keys: dict[str, Any], says: str):
    with pytest.raises(ConfigError) as caught:
        pool(**keys)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_ranks_never_share_a_card():
    with pytest.raises(ConfigError, match="tp 2 needs num_gpus of at least 1"):
        ranks(tp=2, device="cuda", num_gpus=0.5)
