"""The fleet: what comes in, what goes out, and how busy workers and devices are."""

from __future__ import annotations

from infra.dashboards.charts import Board, Chart, Row, level, line, per_second

_NOW = Row(
    "Now",
    (
        Chart(
            "Sessions running",
            "In the routers.",
            "short",
            (line(level("num_requests_running", "sum"), "running"),),
            "number",
            4,
        ),
        Chart(
            "Sessions waiting",
            "In the routers' queues.",
            "short",
            (line(level("num_requests_waiting", "sum"), "waiting"),),
            "number",
            4,
        ),
        Chart(
            "Tokens",
            "Committed a second.",
            "short",
            (line(per_second("generation_tokens_total"), "tokens/s"),),
            "number",
            4,
        ),
        Chart(
            "Workers",
            "By pool.",
            "short",
            (line(level("pool_workers", "max", by="pool"), "{{pool}}"),),
            "number",
            4,
        ),
        Chart(
            "Slow or late workers",
            "Much slower than others of their pool, or past their deadline.",
            "short",
            (line(level("pool_slow_workers", "max", by="pool"), "{{pool}}"),),
            "number",
            4,
        ),
        Chart(
            "Errors",
            "Admitted requests that ended in an error, a minute.",
            "short",
            (line(f"60 * {per_second('request_failure_total')}", "errors/min"),),
            "number",
            4,
        ),
    ),
)
_TRAFFIC = Row(
    "Traffic",
    (
        Chart(
            "Sessions",
            "Running and waiting, over all routers.",
            "short",
            (
                line(level("num_requests_running", "sum"), "running"),
                line(level("num_requests_waiting", "sum"), "waiting"),
            ),
        ),
        Chart(
            "Tokens by mode",
            "Committed a second.",
            "short",
            (line(per_second("generation_tokens_total", by="mode"), "{{mode}}"),),
            "stack",
        ),
        Chart(
            "Ends",
            "Choices a second by how they ended, and requests that failed.",
            "short",
            (
                line(
                    per_second("request_success_total", by="finished_reason"), "{{finished_reason}}"
                ),
                line(per_second("request_failure_total", by="status"), "error {{status}}"),
            ),
        ),
        Chart(
            "Prompt tokens",
            "Of requests that were answered, a second.",
            "short",
            (line(per_second("prompt_tokens_total", by="mode"), "{{mode}}"),),
            "stack",
        ),
    ),
)
_POOLS = Row(
    "Pools and workers",
    (
        Chart(
            "Device utilisation",
            "Of each worker: its GPUs, or its step loop where it has none.",
            "percentunit",
            (line(level("device_util_frac", "avg", by="pool, worker, of"), "{{worker}} ({{of}})"),),
        ),
        Chart(
            "Slots for keys and values in use",
            "Of each worker and tier; at 100 % a session pushes another out.",
            "percentunit",
            (line(level("kv_cache_usage_perc", "max", by="worker, tier"), "{{worker}} {{tier}}"),),
        ),
        Chart(
            "Sessions by pool",
            "That call a worker of the pool home, and those that wait for a step.",
            "short",
            (
                line(level("pool_sessions", "sum", by="pool"), "{{pool}}"),
                line(level("pool_waiting", "sum", by="pool"), "{{pool}} waiting"),
            ),
        ),
        Chart(
            "Step and wait",
            "Seconds that a step computes, and that work waits for it.",
            "s",
            (
                line(level("pool_step_seconds", "avg", by="pool"), "{{pool}} step"),
                line(level("pool_queue_seconds", "avg", by="pool"), "{{pool}} wait"),
            ),
        ),
        Chart(
            "Price of a second",
            "1 where nobody waits; the controller drafts less where it is high.",
            "short",
            (line(level("pool_price", "avg", by="pool"), "{{pool}}"),),
        ),
        Chart(
            "Moves, skips, late steps",
            "Sessions that left a worker for a better one, rounds that did not wait for a draft,"
            " steps past their deadline, a second.",
            "short",
            (
                line(per_second("moved_sessions_total", by="pool"), "{{pool}} moved"),
                line(per_second("skipped_proposals_total", by="pool"), "{{pool}} skipped"),
                line(per_second("late_steps_total", by="pool"), "{{pool}} late"),
            ),
        ),
    ),
)
_NODES = Row(
    "Machines",
    (
        Chart(
            "CPU",
            "Of each node, by Ray's agent there.",
            "percent",
            (line("avg by (ip) (ray_node_cpu_utilization)", "{{ip}}"),),
        ),
        Chart(
            "Memory",
            "Of each node, by Ray's agent there.",
            "bytes",
            (line("max by (ip) (ray_node_mem_used)", "{{ip}}"),),
        ),
        Chart(
            "GPU memory",
            "Of each card that a worker uses, by whomever.",
            "bytes",
            (line(level("gpu_memory_used_bytes", "max", by="gpu"), "{{gpu}}"),),
        ),
        Chart(
            "GPU power",
            "Of each card that a worker uses.",
            "watt",
            (line(level("gpu_power_watts", "max", by="gpu"), "{{gpu}}"),),
        ),
    ),
)
FLEET = Board(
    "fleet",
    "viaserve: fleet",
    "Traffic, pools, workers and machines.",
    (_NOW, _TRAFFIC, _POOLS, _NODES),
)
