"""A router's figures, out to metrics."""

from __future__ import annotations

from collections import Counter
from typing import Any

from actors.tally import Tally
from cluster.metrics import catalogue
from infra.metric import Metric
from infra.metrics import Exporter
from policies.vocabulary import Counters, PlanKind

_LEVELS = {
    "workers": catalogue.POOL_WORKERS,
    "sessions": catalogue.POOL_SESSIONS,
    "waiting": catalogue.POOL_WAITING,
    "price": catalogue.POOL_PRICE,
    "queue_s": catalogue.POOL_QUEUE_S,
    "step_s": catalogue.POOL_STEP_S,
    "util_frac": catalogue.POOL_UTIL,
    "kv_frac": catalogue.POOL_KV,
    "slow_workers": catalogue.POOL_SLOW,
}
_TOTALS = {
    "moved_sessions": catalogue.MOVED,
    "skipped_proposals": catalogue.SKIPPED,
    "late_steps": catalogue.LATE,
}
_COSTS = {
    "rounds": catalogue.ROUNDS,
    "draft_tokens": catalogue.DRAFTED,
    "draft_judged": catalogue.JUDGED,
    "unseen": catalogue.UNSEEN,
    "lenient": catalogue.LENIENT,
    "audit_rows": catalogue.LOOKED,
}


def export_router(
    exporter: Exporter, status: dict[str, Any], reported: dict[str, dict[str, int]]
) -> None:
    """Tell a router's `status`, and the samples of the audit that it has `reported` itself."""
    exporter.level(catalogue.RUNNING, status["running"])
    exporter.level(catalogue.WAITING, status["queued"])
    for taken, rounds in status["auto"]["rounds"].items():
        plan, _, reason = taken.partition(": ")
        exporter.total(catalogue.PLAN_ROUNDS, rounds, plan=plan, reason=reason)
    for plan in PlanKind:
        if plan.exact:
            in_force = float(status["auto"]["in_force"] == plan)
            exporter.level(catalogue.PLAN_IN_FORCE, in_force, plan=str(plan))
    for plan, token_s in status["auto"]["token_s"].items():
        exporter.level(catalogue.PLAN_TOKEN_S, token_s, plan=plan)
    for name, pool in status["pools"].items():
        _export_pool(exporter, pool, name)
    audit = status["audit"]
    exporter.level(catalogue.AUDIT_LEVEL, audit["level"])
    exporter.level(catalogue.AUDIT_BOUND, audit["bound"])
    exporter.level(catalogue.AUDIT_EPSILON, audit["epsilon"])
    for sample in ("sampled", "escalated"):
        tally = reported[sample]
        exporter.total(catalogue.AUDIT_ROWS, tally["rows"], sample=sample)
        exporter.total(catalogue.AUDIT_DISAGREEMENTS, tally["disagreements"], sample=sample)
    for edge, count in reported["overshoot"].items():
        exporter.total(catalogue.OVERSHOOT, count, up_to=edge)


def _export_pool(exporter: Exporter, pool: dict[str, Any], name: str) -> None:
    for key, metric in _LEVELS.items():
        if pool[key] is not None:
            exporter.level(metric, pool[key], pool=name)
    for key, metric in _TOTALS.items():
        exporter.total(metric, pool[key], pool=name)


def export_tally(exporter: Exporter, tally: Tally) -> None:
    """Tell what a router has counted, but for the waits, which are taken."""
    for mode, costs in tally.costs.items():
        _export_costs(exporter, mode, costs)
    for (mode, verdict), count in tally.screened.items():
        exporter.total(catalogue.VERDICTS, count, mode=mode, tier="slim", verdict=verdict)
    for (pool, tier), seconds in tally.busy_s.items():
        exporter.total(catalogue.BUSY, seconds, pool=pool, tier=str(tier))
    _export_blocks(exporter, tally.blocks)


def _export_costs(exporter: Exporter, mode: str, costs: Counters) -> None:
    for field, metric in _COSTS.items():
        exporter.total(metric, getattr(costs, field), mode=mode)
    for tier in ("draft", "slim", "full"):
        exporter.total(catalogue.TOKENS, getattr(costs, f"from_{tier}"), mode=mode, tier=tier)
    for tier in ("slim", "full"):
        exporter.total(catalogue.ROWS, getattr(costs, f"{tier}_rows"), mode=mode, tier=tier)
        exporter.total(catalogue.PASSES, getattr(costs, f"{tier}_passes"), mode=mode, tier=tier)


def _export_blocks(exporter: Exporter, blocks: Counter[tuple[str, int, int]]) -> None:
    """What the full tier has said of blocks, as vLLM counts it, and as verdicts."""
    totals: Counter[tuple[Metric, str]] = Counter()
    at: Counter[tuple[str, int]] = Counter()
    rejected: Counter[str] = Counter()
    for (mode, block, kept), count in blocks.items():
        totals[catalogue.DRAFTS, mode] += count
        totals[catalogue.BLOCK_TOKENS, mode] += count * block
        totals[catalogue.ACCEPTED, mode] += count * kept
        rejected[mode] += count * (kept < block)
        for place in range(block):
            at[mode, place] += count * (place < kept)
    for (metric, mode), count in totals.items():
        exporter.total(metric, count, mode=mode)
    for (mode, place), count in at.items():
        exporter.total(catalogue.ACCEPTED_AT, count, mode=mode, position=str(place))
    for mode, count in rejected.items():
        accepted = totals[catalogue.ACCEPTED, mode]
        for verdict, total in (("accept", accepted), ("regenerate", count)):
            exporter.total(catalogue.VERDICTS, total, mode=mode, tier="full", verdict=verdict)
