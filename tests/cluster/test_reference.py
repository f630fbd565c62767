"""Laws of the configuration reference: it is current, whole, and says what each key means."""

from __future__ import annotations

import re

import pytest

from cluster.config import DEFAULT_CONFIG, ROOT
from cluster.config_file import load
from cluster.reference import reference

TEXT = reference()
ROWS = re.findall(r"^\| `([^`]+)` \| (.*) \| (.*) \| (.*) \| (.*) \|$", TEXT, re.M)


def test_the_file_is_what_the_schema_says():
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == TEXT, "run `python -m cluster config-reference > docs/configuration.md`"


@pytest.mark.parametrize("key", [row[0] for row in ROWS])
def test_every_key_has_a_type_a_default_and_a_meaning(key: str):
    (row,) = (row for row in ROWS if row[0] == key)
    assert all((row[1], row[2], row[4])), row


def test_every_key_of_the_default_config_is_there():
    def paths(tree: object, at: str) -> list[str]:
        if not isinstance(tree, dict):
            return [at]
        return [path for key, value in tree.items() for path in paths(value, f"{at}.{key}")]

    config, http = load(DEFAULT_CONFIG)
    tree = config.model_dump(mode="json", exclude_unset=True)
    (pool,) = tree["pools"].values()
    tree["pools"] = {"NAME": pool}
    found = {path.removeprefix(".") for path in paths(tree | {"http": http}, "")}
    assert found <= {row[0] for row in ROWS}


def test_bounds_words_and_nested_keys_are_told():
    told = {key: (kind, default, allowed) for key, kind, default, allowed, _ in ROWS}
    assert told["pools.NAME.tiers"][1] == "must be given"
    assert told["pools.NAME.memory_frac"] == ("float or null", "`null`", "> 0, ≤ 1")
    assert "`lease`" in told["pools.NAME.cores"][2]
    assert "pools.NAME.fallback.N.accelerator" in told
    assert "pools.NAME.autoscale.target" in told
    assert told["lossy.gate.kind"][2] == "`ratio`, `margin`"
