"""Tiers and acceptance: who chose the tokens, what was kept of them, and what that cost full."""

from __future__ import annotations

from infra.dashboards.charts import (
    Board,
    Chart,
    Query,
    Row,
    level,
    line,
    or_zero,
    over,
    per_second,
    share,
)

_FULL = 'tier="full"'


_ACCEPTED = per_second("spec_decode_num_accepted_tokens_total", by="mode")
_BLOCKS = per_second("spec_decode_num_drafts_total", by="mode")
_ALL_BLOCKS = per_second("spec_decode_num_drafts_total")
_AT = per_second("spec_decode_num_accepted_tokens_per_pos_total", by="position")
_AS_DRAFTED = per_second("generation_tokens_total", 'tier="draft"', by="mode")
_JUDGED = per_second("draft_judged_tokens_total", by="mode")

_ACCEPTANCE = Row(
    "Acceptance",
    (
        Chart(
            "Tokens by tier",
            "Committed a second, by the tier that chose them first.",
            "short",
            (line(per_second("generation_tokens_total", by="tier"), "{{tier}}"),),
            "stack",
        ),
        Chart(
            "Blocks kept by full",
            "Tokens of the blocks put before the full tier that it kept, over all of them (vLLM's"
            " acceptance rate).",
            "percentunit",
            (
                Query(
                    over(
                        per_second("spec_decode_num_accepted_tokens_total", by="mode"),
                        per_second("spec_decode_num_draft_tokens_total", by="mode"),
                    ),
                    "{{mode}}",
                ),
            ),
        ),
        Chart(
            "Tokens a block",
            "Committed by a verification: those kept, and full's own (vLLM's acceptance length).",
            "short",
            (
                Query(
                    or_zero(f"1 + {share(_ACCEPTED, _BLOCKS)}"),
                    "{{mode}}",
                ),
            ),
        ),
        Chart(
            "Kept by place in the block",
            "Of the blocks, the share whose token at this place was kept.",
            "percentunit",
            (
                Query(
                    or_zero(f"({_AT}) / on() group_left() ({_ALL_BLOCKS})"),
                    "{{position}}",
                ),
            ),
        ),
        Chart(
            "Rejection rate",
            "Drafted tokens that were not committed as drafted, over drafted tokens judged.",
            "percentunit",
            (
                Query(
                    or_zero(f"1 - {share(_AS_DRAFTED, _JUDGED)}"),
                    "{{mode}}",
                ),
            ),
        ),
        Chart(
            "Verdicts",
            "A second: accept; regenerate, the tier's own token instead; escalate, left to full.",
            "short",
            (line(per_second("verdicts_total", by="tier, verdict"), "{{tier}} {{verdict}}"),),
        ),
    ),
)
_WORK = Row(
    "Work",
    (
        Chart(
            "Full rows per committed token",
            "Positions that the full tier scored, over committed tokens; plain decoding has 1.",
            "short",
            (
                Query(
                    over(
                        per_second("scored_rows_total", _FULL, by="mode"),
                        per_second("generation_tokens_total", by="mode"),
                    ),
                    "{{mode}}",
                ),
            ),
        ),
        Chart(
            "Full passes per committed token",
            "What latency follows; plain decoding has 1.",
            "short",
            (
                Query(
                    over(
                        per_second("forward_passes_total", _FULL, by="mode"),
                        per_second("generation_tokens_total", by="mode"),
                    ),
                    "{{mode}}",
                ),
            ),
        ),
        Chart(
            "Busy workers by tier",
            "Seconds of computing a second.",
            "short",
            (line(per_second("busy_seconds_total", by="pool, tier"), "{{pool}} {{tier}}"),),
            "stack",
        ),
        Chart(
            "Drafted and judged",
            "Tokens that the draft proposed, and those that slim or full looked at, a second.",
            "short",
            (
                line(per_second("draft_tokens_total"), "drafted"),
                line(per_second("draft_judged_tokens_total"), "judged"),
            ),
        ),
        Chart(
            "Rows by tier",
            "Positions scored a second, prefill not counted.",
            "short",
            (line(per_second("scored_rows_total", by="tier"), "{{tier}}"),),
        ),
        Chart(
            "Rounds",
            "A second.",
            "short",
            (line(per_second("rounds_total", by="mode"), "{{mode}}"),),
        ),
    ),
)
_PLAN = Row(
    "The controller of mode auto",
    (
        Chart(
            "Plan taken",
            "Rounds a second by plan and the reason for it.",
            "short",
            (line(per_second("plan_rounds_total", by="plan, reason"), "{{plan}}: {{reason}}"),),
            "stack",
        ),
        Chart(
            "Plan in force",
            "Routers whose plan this is.",
            "short",
            (line(level("plan_in_force", "sum", by="plan"), "{{plan}}"),),
            "stack",
        ),
        Chart(
            "Predicted seconds a token",
            "By plan, from what was measured.",
            "s",
            (line(level("plan_predicted_token_seconds", "avg", by="plan"), "{{plan}}"),),
        ),
    ),
)
TIERS = Board(
    "tiers",
    "viaserve: tiers and acceptance",
    "Who chose the tokens, what was kept, what it cost.",
    (_ACCEPTANCE, _WORK, _PLAN),
)
