"""The `timeline` of an answer: one entry a stage, in milliseconds since the request came in.

A stage is the time in the queue, a call to a worker, or a tier's part of one; see `recorder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policies.vocabulary import StageTime

MAX_ENTRIES = 2_000


def timeline_of(stages: Sequence[StageTime]) -> dict[str, Any]:
    """The first entries, and whether there were more."""
    entries = [_entry(stage) for stage in stages[:MAX_ENTRIES]]
    cut = {"timeline_truncated": True} if len(stages) > MAX_ENTRIES else {}
    return {"timeline": entries, **cut}


def _entry(stage: StageTime) -> dict[str, Any]:
    return {
        "span": stage.stage.value,
        "tier": stage.tier and stage.tier.value,
        "pool": stage.pool,
        "worker": stage.worker,
        "round": stage.round,
        "start_ms": round(1e3 * stage.start_s, 3),
        "ms": round(1e3 * stage.wall_s, 3),
        "busy_ms": round(1e3 * stage.busy_s, 3),
        "batch": stage.batch,
        "rows": stage.rows,
        "committed": stage.committed,
    }
