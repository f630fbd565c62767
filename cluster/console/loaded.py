"""What was loaded where, and what sessions cost, line by line: of the workers that announced
themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from policies.vocabulary import Tier

if TYPE_CHECKING:
    from actors.messages import WorkerReport
    from cluster.preflight import Facts


def loaded_lines(facts: Facts, reports: Iterable[WorkerReport]) -> list[str]:
    """The model first, then a line a worker and a line a tier."""
    model = facts.config.model
    lines = [f"{model.name} ({facts.fingerprint}), {facts.dtype}, context {model.context}"]
    for report in sorted(reports, key=lambda report: report.worker_id):
        lines += _worker_lines(report)
    return lines


def _worker_lines(report: WorkerReport) -> Iterator[str]:
    invariant = "row-invariant" if report.row_invariant else "NOT row-invariant: exact up to ties"
    # Only full has to be: nobody asks it of a draft.
    law = f", {invariant}" if Tier.FULL in report.tiers else ""
    ranks = len(report.rank_pids)
    whose = f"in rank 0 of {ranks}" if ranks else "in all"
    yield (
        f"  {report.worker_id}: {report.device}, {report.threads} threads, weights"
        f" {_mb(report.weight_bytes)} {whose}{law}"
    )
    for tier, stats in report.engines.items():
        if not stats.slots:
            yield f"    {tier}: prompt lookup, no weights"
            continue
        per_session = stats.kv_bytes_per_token * stats.slot_tokens
        yield (
            f"    {tier}: weights {_mb(stats.weight_bytes)}, KV {stats.kv_bytes_per_token:,} B a"
            f" token, at most {_mb(per_session)} a session and {_mb(per_session * stats.slots)}"
            f" for {stats.slots} sessions"
        )


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
