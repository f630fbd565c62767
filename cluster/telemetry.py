"""Which of a router's figures go out under which name."""

from __future__ import annotations

from typing import Any

from infra.metrics import Exporter


def export(exporter: Exporter, status: dict[str, Any], model: str) -> None:
    """Tell a router's `status`; called every few seconds."""
    of = {"model_name": model}
    exporter.level("num_requests_running", "Sessions that run.", status["running"], **of)
    exporter.level("num_requests_waiting", "Sessions that queue.", status["queued"], **of)
    for taken, rounds in status["auto"]["rounds"].items():
        plan, _, reason = taken.partition(": ")
        what = "Rounds of mode auto by plan and the reason for it."
        exporter.total("plan_rounds_total", what, rounds, plan=plan, reason=reason, **of)
    for plan, token_s in status["auto"]["token_s"].items():
        what = "Predicted seconds of a session per committed token."
        exporter.level("plan_predicted_token_seconds", what, token_s, plan=plan, **of)
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
