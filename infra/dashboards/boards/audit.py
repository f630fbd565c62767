"""The audit of the lossy modes: what it found, and what it did."""

from __future__ import annotations

from infra.dashboards.charts import Board, Chart, Query, Row, level, line, metric, over, per_second

_COMMITTED = per_second("generation_tokens_total", by="mode")
_PASSED = over(per_second("unseen_tokens_total", by="mode"), _COMMITTED)
_LET_PASS = over(per_second("lenient_tokens_total", by="mode"), _COMMITTED)
_DISAGREE = over(
    per_second("audit_disagreements_total", by="sample"),
    per_second("audit_rows_total", by="sample"),
)
_OVERSHOOT = f"sum by (up_to) ({metric('audit_overshoot_tokens_total')})"

_LAW = Row(
    "The law",
    (
        Chart(
            "Bound and limit",
            "The anytime-valid upper bound on the mean disagreement at the present level, and"
            " epsilon, the highest that is allowed. Without rows the bound is 1.",
            "percentunit",
            (
                line(level("audit_disagreement_bound", "max"), "bound"),
                line(level("audit_epsilon", "max"), "epsilon"),
            ),
            width=12,
        ),
        Chart(
            "Level of the gate",
            "0: the gate as asked for; the highest: closed, mode via is exact.",
            "short",
            (line(level("audit_level", "max"), "level"),),
            width=12,
        ),
    ),
)
_ROWS = Row(
    "Rows",
    (
        Chart(
            "Audited tokens",
            "A second: of the random sample, and of escalations (a biased sample, in no bound).",
            "short",
            (line(per_second("audit_rows_total", by="sample"), "{{sample}}"),),
        ),
        Chart(
            "Disagreement",
            "Of audited tokens, the share that full would have chosen otherwise.",
            "percentunit",
            (Query(_DISAGREE, "{{sample}}"),),
        ),
        Chart(
            "Overshoot",
            "Sampled tokens so far by slim's less full's log probability; a bucket's name is its"
            " upper edge in nats. The tail predicts collapse.",
            "short",
            (
                line(
                    'sum by (up_to) (${prefix}audit_overshoot_tokens_total{model_name=~"$model"})',
                    "{{up_to}}",
                ),
            ),
            "bars",
        ),
    ),
)
_LOSS = Row(
    "What was lossy",
    (
        Chart(
            "Committed unseen",
            "Of committed tokens, the share that slim committed without full.",
            "percentunit",
            (Query(_PASSED, "{{mode}}"),),
        ),
        Chart(
            "Let pass",
            "Of committed tokens, the share that full would have chosen otherwise (cascade).",
            "percentunit",
            (Query(_LET_PASS, "{{mode}}"),),
        ),
        Chart(
            "Rows for looks",
            "Of the full tier in the background, a second: what the audit costs.",
            "short",
            (line(per_second("audit_look_rows_total"), "rows/s"),),
        ),
    ),
)
AUDIT = Board("audit", "viaserve: audit", "Lossy modes under audit.", (_LAW, _ROWS, _LOSS))
