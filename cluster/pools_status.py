"""How each pool stands against the config: for /ready and for the lines of `serve`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def pools_status(replicas: Mapping[str, int], status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each pool: workers wanted and running, why each of the others does not run, and what the
    router has seen of it.

    `replicas`: by pool, as configured, or the least where the load sets their number;
    `status`: a router's, with `workers`, `waiting` and, by name, the `pools` that it has seen.
    """
    pools: list[dict[str, Any]] = []
    for name, configured in replicas.items():
        running = sum(worker["pool"] == name for worker in status["workers"])
        missing = [
            {key: waiting[key] for key in ("worker_id", "placed", "why")}
            for waiting in status["waiting"]
            if waiting["pool"] == name
        ]
        wanted = max(configured, running + len(missing))
        here = {"name": name, "wanted": wanted, "running": running, "missing": missing}
        pools.append(status.get("pools", {}).get(name, {}) | here)
    return pools


def lines_of(pools: list[dict[str, Any]]) -> list[str]:
    """A line for each pool with workers that have no place."""
    lines: list[str] = []
    for pool in pools:
        whys = dict.fromkeys(m["why"] for m in pool["missing"] if not m["placed"])
        if whys:
            counts = f"{pool['running']} of {pool['wanted']} workers"
            lines.append(f"pool {pool['name']}: {counts}; {'; '.join(whys)}")
    return lines


def is_stuck(pools: list[dict[str, Any]]) -> bool:
    """Whether some worker has no place and none is on its way."""
    missing = [waiting for pool in pools for waiting in pool["missing"]]
    known = all(p["running"] + len(p["missing"]) >= p["wanted"] for p in pools)
    return known and bool(missing) and not any(waiting["placed"] for waiting in missing)
