"""Cost: workers' time by pool, priced as the config says, over committed tokens."""

from __future__ import annotations

from infra.dashboards.charts import Board, Chart, Query, Row, line, metric, or_zero, per_second

_COST = per_second("cost_usd_total")
_TOKENS = per_second("generation_tokens_total")
_SO_FAR = f"1e6 * sum ({metric('cost_usd_total')}) / sum ({metric('generation_tokens_total')})"

_MONEY = Row(
    "Money (pools.NAME.price_per_hour in the config; without it 0)",
    (
        Chart(
            "USD per million tokens, so far",
            "Of all workers since they began, loading and idle time included, over committed"
            " tokens.",
            "currencyUSD",
            (Query(or_zero(_SO_FAR), "USD per million"),),
            "number",
        ),
        Chart(
            "USD an hour",
            "Of all workers there are.",
            "currencyUSD",
            (line(f"3600 * {_COST}", "USD/h"),),
            "number",
        ),
        Chart(
            "Tokens an hour",
            "Committed.",
            "short",
            (line(f"3600 * {_TOKENS}", "tokens/h"),),
            "number",
        ),
        Chart(
            "USD per million tokens",
            "Of all workers, over the tokens committed meanwhile.",
            "currencyUSD",
            (Query(or_zero(f"1e6 * ({_COST}) / ({_TOKENS} > 0)"), "USD per million"),),
            width=12,
        ),
        Chart(
            "USD an hour by pool",
            "Of all workers there are.",
            "currencyUSD",
            (line(f"3600 * {per_second('cost_usd_total', by='pool')}", "{{pool}}"),),
            "stack",
            12,
        ),
    ),
)
_USE = Row(
    "Use",
    (
        Chart(
            "Workers",
            "Seconds of workers' lives a second, by pool.",
            "short",
            (line(per_second("worker_seconds_total", by="pool"), "{{pool}}"),),
            "stack",
        ),
        Chart(
            "Busy share",
            "Seconds that workers computed, over the seconds that they lived.",
            "percentunit",
            (
                Query(
                    or_zero(
                        f"({per_second('busy_seconds_total', by='pool')})"
                        f" / ({per_second('worker_seconds_total', by='pool')})"
                    ),
                    "{{pool}}",
                ),
            ),
        ),
        Chart(
            "Busy seconds per thousand tokens",
            "By pool and tier: where the money goes.",
            "s",
            (
                Query(
                    or_zero(
                        f"1000 * ({per_second('busy_seconds_total', by='pool, tier')})"
                        f" / on() group_left() ({_TOKENS} > 0)"
                    ),
                    "{{pool}} {{tier}}",
                ),
            ),
            "stack",
        ),
    ),
)
COST = Board("cost", "viaserve: cost", "What tokens cost.", (_MONEY, _USE))
