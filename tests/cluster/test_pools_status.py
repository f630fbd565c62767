"""Laws of what is said of pools: who is wanted, who runs, and why the others do not."""

from __future__ import annotations

from typing import Any

from cluster.pools_status import is_stuck, lines_of, pools_status

REPLICAS = {"cheap": 2, "large": 1}


def waiting(pool: str, worker_id: str, why: str = "") -> dict[str, Any]:
    return {"worker_id": worker_id, "pool": pool, "placed": not why, "why": why or "loads"}


def status(*running: str, waits: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"workers": [{"pool": pool} for pool in running], "waiting": list(waits)}


def test_each_pool_says_what_it_lacks():
    here = status("large", "cheap", waits=(waiting("cheap", "c", "no node has L4"),))
    cheap, large = pools_status(REPLICAS, here)
    assert cheap == {
        "name": "cheap",
        "wanted": 2,
        "running": 1,
        "missing": [{"worker_id": "c", "placed": False, "why": "no node has L4"}],
    }
    assert large == {"name": "large", "wanted": 1, "running": 1, "missing": []}


def test_workers_beyond_the_config_are_wanted_too():
    here = status("large", "cheap", "cheap", waits=(waiting("cheap", "c"),))
    assert [p["wanted"] for p in pools_status(REPLICAS, here)] == [3, 1]


def test_one_line_a_pool_says_each_reason_once():
    waits = (
        waiting("cheap", "a", "no L4"),
        waiting("cheap", "b", "no L4"),
        waiting("cheap", "c"),
        waiting("large", "d"),
    )
    lines = lines_of(pools_status(REPLICAS, status(waits=waits)))
    assert lines == ["pool cheap: 0 of 3 workers; no L4"]


def test_nobody_is_waited_for_only_when_all_who_lack_have_no_place():
    lost = (waiting("cheap", "a", "no L4"), waiting("cheap", "b", "no L4"))
    loads = (waiting("cheap", "a", "no L4"), waiting("cheap", "b"))
    assert is_stuck(pools_status(REPLICAS, status("large", waits=lost)))
    assert not is_stuck(pools_status(REPLICAS, status("large", waits=loads)))
    assert not is_stuck(pools_status(REPLICAS, status("large", waits=lost[:1])))
    assert not is_stuck(pools_status(REPLICAS, status("large", "cheap", "cheap")))
