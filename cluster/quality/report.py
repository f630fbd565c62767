"""The report of a comparison: a table, and one JSON line."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from cluster.quality.figures import ArmFigures
from infra.bench.table import number, plain_table

HEADERS = (
    *("mode", "tokens", "agreement", "perplexity", "rejected", "full rate", "passes"),
    *("rows", "drafted", "tokens/s", "time ratio", "same text", "audit"),
)


@dataclass(frozen=True, slots=True)
class QualityReport:
    """A run's figures, the first arm's first."""

    options: dict[str, Any]
    arms: tuple[ArmFigures, ...]
    errors: int
    first_error: str

    @property
    def failed(self) -> bool:
        """Whether the command should exit non-zero."""
        return self.errors > 0

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self) | {"failed": self.failed}, ensure_ascii=False)


def render(report: QualityReport) -> str:
    """The table, then what its columns mean."""
    first = report.arms[0].mode
    lines = [
        plain_table(HEADERS, (_row(arm) for arm in report.arms)),
        "Agreement: share of the answer's tokens that full would have chosen after the same "
        "prefix; perplexity: full's, of the answer.",
        "Rejected: drafted tokens not committed as drafted, of those judged. Full rate: tokens "
        "committed with full's row, of all (the audit may score others afterwards).",
        f"Time ratio: seconds per token over those of {first}, paired by prompt, median; same "
        f"text: prompts answered as {first} did.",
        "Passes and rows of full (with the audit's), and drafted tokens, are per token; audit: its "
        "highest level.",
    ]
    if tightened := [arm.mode for arm in report.arms if arm.audit_level]:
        lines.append(
            f"The audit had tightened the gate in: {', '.join(tightened)}. Their thresholds were "
            "stricter than their names say."
        )
    if report.errors:
        lines.append(f"errors: {report.errors}, the first: {report.first_error}")
    return "\n".join(lines) + "\n"


def _row(arm: ArmFigures) -> tuple[str, ...]:
    return (
        arm.mode,
        str(arm.tokens),
        number(arm.agreement, 4),
        number(arm.perplexity, 3),
        number(arm.rejection_rate),
        number(arm.full_rate),
        number(arm.full_passes_per_token),
        number(arm.full_rows_per_token),
        number(arm.draft_tokens_per_token),
        f"{arm.tokens_per_s:.1f}",
        number(arm.time_ratio),
        number(arm.same_text),
        "-" if arm.audit_level is None else str(arm.audit_level),
    )
