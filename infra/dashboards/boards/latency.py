"""Latency as clients feel it, and where it comes from."""

from __future__ import annotations

from infra.dashboards.charts import (
    Board,
    Chart,
    Query,
    Row,
    latency,
    level,
    line,
    over,
    per_second,
)

_MEAN = over(
    per_second("inter_token_latency_seconds_sum", by="mode"),
    per_second("inter_token_latency_seconds_count", by="mode"),
)

_CLIENT = Row(
    "Requests",
    (
        latency(
            "Time to first token",
            "From a request's arrival to a choice's first token.",
            "time_to_first_token_seconds",
        ),
        latency(
            "Inter-token latency",
            "From one commit to the next, over the tokens of the next; one value a commit.",
            "inter_token_latency_seconds",
        ),
        latency(
            "Whole request",
            "From a request's arrival to a choice's end.",
            "e2e_request_latency_seconds",
        ),
        latency(
            "Queue",
            "Seconds of a session in the router's queue.",
            "request_queue_time_seconds",
        ),
    ),
)
_PARTS = Row(
    "Where it comes from",
    (
        Chart(
            "Mean inter-token latency",
            "Ray's histograms keep counts, not values: sums, and so means, are made of the middle"
            " of each bucket.",
            "s",
            (Query(_MEAN, "{{mode}}"),),
        ),
        Chart(
            "Step of a worker",
            "Seconds that a step computes, by pool.",
            "s",
            (line(level("pool_step_seconds", "avg", by="pool"), "{{pool}}"),),
        ),
        Chart(
            "Wait for a step",
            "Seconds, by pool.",
            "s",
            (line(level("pool_queue_seconds", "avg", by="pool"), "{{pool}}"),),
        ),
    ),
)
LATENCY = Board(
    "latency",
    "viaserve: latency",
    "What requests took, by mode.",
    (_CLIENT, _PARTS),
)
