"""Which of a router's figures go out under which name."""

from __future__ import annotations

from typing import Any

from infra.metrics import Exporter
from policies.vocabulary import PlanKind


def export(exporter: Exporter, status: dict[str, Any], model: str) -> None:
    """Tell a router's `status`; called every few seconds."""
    of = {"model_name": model}
    exporter.level("num_requests_running", "Sessions that run.", status["running"], **of)
    exporter.level("num_requests_waiting", "Sessions that queue.", status["queued"], **of)
    for taken, rounds in status["auto"]["rounds"].items():
        plan, _, reason = taken.partition(": ")
        what = "Rounds of mode auto by plan and the reason for it."
        exporter.total("plan_rounds_total", what, rounds, plan=plan, reason=reason, **of)
    for plan in PlanKind:
        if plan.exact:
            what = "1 for the plan of mode auto that is in force, 0 for the others."
            in_force = float(status["auto"]["in_force"] == plan)
            exporter.level("plan_in_force", what, in_force, plan=str(plan), **of)
    for plan, token_s in status["auto"]["token_s"].items():
        what = "Predicted seconds of a session per committed token."
        exporter.level("plan_predicted_token_seconds", what, token_s, plan=plan, **of)
    for name, pool in status["pools"].items():
        _export_pool(exporter, pool, {"pool": name, **of})
    audit = status["audit"]
    exporter.level("audit_level", "How far the audit has tightened the gate.", audit["level"], **of)
    what = "Anytime-valid upper bound on the mean disagreement of the present level."
    exporter.level("audit_disagreement_bound", what, audit["bound"], **of)
    for sample in ("sampled", "escalated"):
        tally = audit[sample]
        what = "Committed tokens that the full model looked at afterwards."
        exporter.total("audit_rows_total", what, tally["rows"], sample=sample, **of)
        what = "Those of them that the full model would have chosen otherwise."
        count = tally["disagreements"]
        exporter.total("audit_disagreements_total", what, count, sample=sample, **of)
    what = "Sampled tokens by slim's less full's log probability, upper edge in nats."
    for edge, count in audit["overshoot"].items():
        exporter.total("audit_overshoot_tokens_total", what, count, le=edge, **of)


_LEVELS = {
    "workers": ("pool_workers", "Workers that the router knows."),
    "sessions": ("pool_sessions", "Sessions that call a worker of the pool home."),
    "waiting": ("pool_waiting", "Sessions that wait for a step."),
    "price": ("pool_price", "Price of a second of the pool, 1 where nobody waits."),
    "queue_s": ("pool_queue_seconds", "Seconds that work waits for its step."),
    "step_s": ("pool_step_seconds", "Seconds that a step computes."),
    "util_frac": ("pool_util_frac", "Share of the time that the workers compute."),
    "kv_frac": ("pool_kv_frac", "Share of the slots for keys and values in use."),
    "slow_workers": ("pool_slow_workers", "Workers much slower than others, or late."),
}
_TOTALS = {
    "moved_sessions": ("moved_sessions_total", "Sessions that left a worker for a better one."),
    "skipped_proposals": ("skipped_proposals_total", "Rounds that did not wait for a draft."),
    "late_steps": ("late_steps_total", "Steps that were past their deadline."),
}


def _export_pool(exporter: Exporter, pool: dict[str, Any], labels: dict[str, str]) -> None:
    for key, (name, what) in _LEVELS.items():
        if pool[key] is not None:
            exporter.level(name, what, pool[key], **labels)
    for key, (name, what) in _TOTALS.items():
        exporter.total(name, what, pool[key], **labels)
