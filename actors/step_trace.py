"""A worker's step in the traces of the sessions that shared it, told when it is over.

Each traced session of the step has a span of it below its own round; these link to the rounds of
the others, so that a trace leads to who shared the batch.
"""

from __future__ import annotations

from actors.messages import StepReply, StepRequest
from infra.tracing import Tracer
from policies.work import WorkItem


def trace_step(
    tracer: Tracer, pool: str, worker_id: str, request: StepRequest, reply: StepReply, end_s: float
) -> None:
    """Tell a step that took `reply.busy_s` until `end_s`, in seconds of the wall clock."""
    shared: dict[str, object] = {
        "viaserve.pool": pool,
        "viaserve.worker_id": worker_id,
        "viaserve.batch": len(request.items),
        "viaserve.busy_s": reply.busy_s,
    }
    for timing in reply.timings:
        shared |= {
            f"viaserve.{timing.tier}.busy_s": timing.seconds,
            f"viaserve.{timing.tier}.forwards": timing.forwards,
            f"viaserve.{timing.tier}.rows": timing.rows,
        }
    for place, carrier in request.traces:
        item = request.items[place]
        tracer.span(
            f"step {item.kind}",
            carrier,
            end_s - reply.busy_s,
            end_s,
            kind="consumer",
            attributes=shared | _of_item(item),
            links=[other for number, other in request.traces if number != place],
        )


def _of_item(item: WorkItem) -> dict[str, object]:
    return {
        "viaserve.session_id": item.session_id,
        "viaserve.step.kind": item.kind.value,
        "viaserve.plan": item.plan.kind.value,
        "viaserve.tokens.told": len(item.tokens),
    }
