"""Every metric that is exported: names, labels and what they mean, in one table.

Each also has the label `model_name`. Names end as vLLM's do where vLLM has the same figure.
"""

from __future__ import annotations

from infra.metric import Metric

_LATENCY_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5)
_FIRST_S = (*_LATENCY_S, 10.0, 20.0, 40.0, 80.0, 160.0)
_TOKEN_S = (0.001, 0.0025, *_LATENCY_S[:13], 10.0)
_REQUEST_S = (0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0)
_WHOLE_S = (*_REQUEST_S, 60.0, 120.0, 240.0, 480.0)
_WAIT_S = (0.005, 0.025, *_WHOLE_S)

CATALOGUE: dict[str, Metric] = {}


def _add(metric: Metric) -> Metric:
    assert metric.name not in CATALOGUE, metric.name
    CATALOGUE[metric.name] = metric
    return metric


def _counter(name: str, what: str, *labels: str) -> Metric:
    return _add(Metric(name, "counter", what, labels))


def _gauge(name: str, what: str, *labels: str, over: str = "sum") -> Metric:
    assert over in ("sum", "max", "avg")
    return _add(Metric(name, "gauge", what, labels, over))


def _histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return _add(Metric(name, "histogram", what, labels, "sum", buckets))


# Requests, told by the ingress.
FIRST_TOKEN = _histogram(
    "time_to_first_token_seconds",
    "From a request's arrival to a choice's first token.",
    _FIRST_S,
    "mode",
)
TOKEN_GAP = _histogram(
    "inter_token_latency_seconds",
    "From one commit of a choice to the next, over the tokens of the next; one value a commit.",
    _TOKEN_S,
    "mode",
)
WHOLE = _histogram(
    "e2e_request_latency_seconds",
    "From a request's arrival to a choice's end.",
    _WHOLE_S,
    "mode",
)
PROMPT_TOKENS = _counter("prompt_tokens_total", "Tokens of prompts that were answered.", "mode")
SUCCESS = _counter(
    "request_success_total",
    "Choices by how they ended: stop, length, or abort where the client left.",
    "mode",
    "finished_reason",
)
FAILURE = _counter(
    "request_failure_total", "Admitted requests that ended in an error.", "mode", "status"
)

# Sessions, told by each router of its own.
RUNNING = _gauge("num_requests_running", "Sessions that run.")
WAITING = _gauge("num_requests_waiting", "Sessions that queue.")
QUEUE_TIME = _histogram(
    "request_queue_time_seconds", "Seconds of a session in the router's queue.", _WAIT_S, "mode"
)
TOKENS = _counter(
    "generation_tokens_total",
    "Committed tokens, by the tier that chose them first.",
    "mode",
    "tier",
)
DRAFTS = _counter("spec_decode_num_drafts_total", "Blocks that the full tier has judged.", "mode")
BLOCK_TOKENS = _counter("spec_decode_num_draft_tokens_total", "Tokens of those blocks.", "mode")
ACCEPTED = _counter(
    "spec_decode_num_accepted_tokens_total", "Tokens of those blocks that it kept.", "mode"
)
ACCEPTED_AT = _counter(
    "spec_decode_num_accepted_tokens_per_pos_total",
    "The same by their place in the block, from 0.",
    "mode",
    "position",
)
VERDICTS = _counter(
    "verdicts_total",
    "What slim or full said of tokens put before it: accept; regenerate, its own token instead;"
    " escalate, left to full.",
    "mode",
    "tier",
    "verdict",
)
ROUNDS = _counter("rounds_total", "Rounds: propose, verify, commit.", "mode")
DRAFTED = _counter("draft_tokens_total", "Tokens that the draft proposed.", "mode")
JUDGED = _counter(
    "draft_judged_tokens_total",
    "Drafted tokens that slim or full looked at; what follows a rejected one is not.",
    "mode",
)
ROWS = _counter(
    "scored_rows_total", "Positions that a tier scored, prefill not counted.", "mode", "tier"
)
PASSES = _counter(
    "forward_passes_total", "Passes that scored such rows, a session's each.", "mode", "tier"
)
UNSEEN = _counter("unseen_tokens_total", "Tokens committed without the full tier.", "mode")
LENIENT = _counter(
    "lenient_tokens_total", "Tokens committed though the full tier chose another.", "mode"
)
LOOKED = _counter(
    "audit_look_rows_total", "Rows that background looks of the full tier have cost.", "mode"
)
BUSY = _counter("busy_seconds_total", "Seconds that workers computed.", "pool", "tier")

# The controller of mode auto, told by each router.
PLAN_ROUNDS = _counter(
    "plan_rounds_total", "Rounds of mode auto by plan and the reason for it.", "plan", "reason"
)
PLAN_IN_FORCE = _gauge(
    "plan_in_force", "1 for the plan of mode auto that is in force, 0 for the others.", "plan"
)
PLAN_TOKEN_S = _gauge(
    "plan_predicted_token_seconds",
    "Predicted seconds of a session per committed token.",
    "plan",
    over="avg",
)

# The audit: its book is shared, so every router tells the same level and bound; rows are its own.
AUDIT_LEVEL = _gauge("audit_level", "How far the audit has tightened the gate.", over="max")
AUDIT_BOUND = _gauge(
    "audit_disagreement_bound",
    "Anytime-valid upper bound on the mean disagreement of the present level.",
    over="max",
)
AUDIT_EPSILON = _gauge("audit_epsilon", "The highest disagreement that is allowed.", over="max")
AUDIT_ROWS = _counter(
    "audit_rows_total", "Committed tokens that the full model looked at afterwards.", "sample"
)
AUDIT_DISAGREEMENTS = _counter(
    "audit_disagreements_total",
    "Those of them that the full model would have chosen otherwise.",
    "sample",
)
OVERSHOOT = _counter(
    "audit_overshoot_tokens_total",
    "Sampled tokens by slim's less full's log probability, upper edge of the bucket in nats.",
    "up_to",
)

# Pools as each router sees them.
POOL_WORKERS = _gauge("pool_workers", "Workers that the router knows.", "pool", over="max")
POOL_SESSIONS = _gauge("pool_sessions", "Sessions that call a worker of the pool home.", "pool")
POOL_WAITING = _gauge("pool_waiting", "Sessions that wait for a step.", "pool")
POOL_PRICE = _gauge(
    "pool_price", "Price of a second of the pool, 1 where nobody waits.", "pool", over="avg"
)
POOL_QUEUE_S = _gauge(
    "pool_queue_seconds", "Seconds that work waits for its step.", "pool", over="avg"
)
POOL_STEP_S = _gauge("pool_step_seconds", "Seconds that a step computes.", "pool", over="avg")
POOL_UTIL = _gauge(
    "pool_util_frac", "Share of the time that the workers compute.", "pool", over="avg"
)
POOL_KV = _gauge(
    "pool_kv_frac", "Share of the slots for keys and values in use.", "pool", over="max"
)
POOL_SLOW = _gauge(
    "pool_slow_workers", "Workers much slower than others, or late.", "pool", over="max"
)
MOVED = _counter("moved_sessions_total", "Sessions that left a worker for a better one.", "pool")
SKIPPED = _counter("skipped_proposals_total", "Rounds that did not wait for a draft.", "pool")
LATE = _counter("late_steps_total", "Steps that were past their deadline.", "pool")

# Workers, each told by the one pool replica that keeps it.
KV_USAGE = _gauge(
    "kv_cache_usage_perc",
    "Share (1 is all) of a worker's slots for keys and values in use.",
    "pool",
    "worker",
    "tier",
    over="max",
)
DEVICE_UTIL = _gauge(
    "device_util_frac",
    "How busy the worker's device is: `of` says whether its GPUs or, without one, its step loop.",
    "pool",
    "worker",
    "of",
    over="avg",
)
GPU_MEMORY_USED = _gauge(
    "gpu_memory_used_bytes", "Of a card, by whomever.", "pool", "worker", "gpu", over="max"
)
GPU_MEMORY = _gauge("gpu_memory_total_bytes", "Of a card.", "pool", "worker", "gpu", over="max")
GPU_POWER = _gauge(
    "gpu_power_watts", "Of a card, by whomever.", "pool", "worker", "gpu", over="max"
)
GPU_HEAT = _gauge("gpu_temperature_celsius", "Of a card.", "pool", "worker", "gpu", over="max")
WORKER_SESSIONS = _gauge("worker_sessions", "Sessions whose ids a worker holds.", "pool", "worker")
WORKER_SECONDS = _counter(
    "worker_seconds_total", "Seconds that workers have lived, loading included.", "pool"
)
COST = _counter(
    "cost_usd_total", "The same times the pool's price_per_hour, where it has one.", "pool"
)
