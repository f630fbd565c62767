"""Laws of `balance` in the config: what it says is what routers are told, faults name the key."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.config import ConfigError, parse
from cluster.config_balance import BalanceConfig
from policies.balance import BalanceSettings
from policies.deadline import DeadlineSettings
from policies.pressure import PressureSettings

MINIMAL: dict[str, Any] = {
    "pools": {"cheap": {"tiers": ["draft"]}, "large": {"tiers": ["full"]}},
}


def balance(**settings: Any) -> BalanceConfig:
    return parse({**MINIMAL, "balance": settings}, "here").balance


def test_the_defaults_are_the_policies_own():
    config = parse(MINIMAL, "here").balance
    assert config.moves
    assert config.settings() == BalanceSettings()
    assert config.pressure_settings() == PressureSettings()
    assert config.deadline() == DeadlineSettings()


def test_what_it_says_is_what_routers_are_told():
    config = balance(moves=False, margin=0.5, max_price=4, late_factor=20)
    assert not config.moves
    assert config.settings().margin == 0.5
    assert config.pressure_settings() == PressureSettings(max_price=4.0)
    assert config.deadline() == DeadlineSettings(factor=20.0)
    assert balance(pressure=False).pressure_settings() is None
    assert balance(late_factor=0).deadline() is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"margn": 0.1}, "balance.margn: no such key here"),
        ({"margin": 1.0}, "balance.margin: Input should be less than 1"),
        ({"margin": -0.1}, "balance.margin"),
        ({"max_price": 0.5}, "balance.max_price: Input should be greater than or equal to 1"),
        ({"max_price": ".inf"}, "balance.max_price"),
        ({"late_factor": 1.0}, "balance.late_factor: must be 2 or more, or 0 for never"),
        ({"moves": "sometimes"}, "balance.moves"),
        ({"pressure": 3}, "balance.pressure"),
    ],
)
def test_faults_name_the_key(settings: dict[str, Any], says: str):
    with pytest.raises(ConfigError) as caught:
        balance(**settings)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
