"""Whom `serve` waits for at the start: every tier, or full where the others find no place."""

from __future__ import annotations

import contextlib
import time

import httpx

from cluster.console.start import Teller
from cluster.errors import ConfigError
from cluster.pools_status import is_stuck

READY_TIMEOUT_S = 600.0
STUCK_S = 10.0
"""So long must the workers that are missing have had no place before we go on without them."""
_POLL_S = 0.5


def wait_ready(base: str, teller: Teller) -> None:
    """Until every tier is there; or full is, and the others find no place or run out of time."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    state = "loading"
    stuck_since: float | None = None
    while (now := time.monotonic()) < deadline:
        # Before the application is there, Serve answers with a text of its own.
        with contextlib.suppress(httpx.HTTPError, ValueError):
            status = httpx.get(f"{base}/ready", timeout=10.0).json()
            state = status["status"]
            if state == "loading" or not is_stuck(status["pools"]):
                stuck_since = None
            elif stuck_since is None:
                stuck_since = now
            settled = stuck_since is not None and now - stuck_since >= STUCK_S
            waits = not settled and state != "ok"
            missing = [tier for tier, is_here in status["tiers"].items() if not is_here]
            teller.saw(status, missing if waits else [])
            if not waits:
                return
        time.sleep(_POLL_S)
    if state != "degraded":
        raise ConfigError(f"not ready within {READY_TIMEOUT_S:.0f} s; Ray's logs say more")
