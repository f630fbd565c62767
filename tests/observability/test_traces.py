"""A real server's traces, received by a real OTLP receiver: one trace a request, over every
process that worked for it, below the caller's span."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.observability.collector import Collector, Received, grpc_collector, http_collector
from tests.serving.server import Server, serving

pytestmark = pytest.mark.slow

COLLECTORS = {"otlp-http": http_collector, "otlp-grpc": grpc_collector}
CALLER = "00f067aa0ba902b7"
PLAN = {"mode": "three_tier", "gamma": 3, "block": 4}


def traceparent(number: int, sampled: bool = True) -> tuple[str, str]:
    trace_id = f"{number:x}".rjust(32, "a")
    return trace_id, f"00-{trace_id}-{CALLER}-{int(sampled):02x}"


def ask(server: Server, parent: str, **fields: Any) -> tuple[httpx.Response, dict[str, Any]]:
    body = {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": "Name three colours."}],
        "max_tokens": 12,
        "seed": 7,
        "viaserve": PLAN | {"timeline": True},
        **fields,
    }
    headers = {"traceparent": parent, "tracestate": "shop=1"}
    url = f"{server.url}/v1/chat/completions"
    reply = httpx.post(url, json=body, headers=headers, timeout=300.0)
    assert reply.status_code == 200, reply.text
    return reply, {} if body.get("stream") else reply.json()


def by_part(spans: list[Received], part: str, name: str = "") -> list[Received]:
    return [s for s in spans if s.part == part and s.name.startswith(name)]


def check_tree(spans: list[Received], answer: dict[str, Any]) -> None:
    """One tree below the caller's span, inside its parents' times."""
    known = {span.span_id: span for span in spans}
    [ingress] = by_part(spans, "ingress")
    [session] = by_part(spans, "router", "session")
    assert (ingress.parent_id, session.parent_id) == (CALLER, ingress.span_id)
    assert all(span.state == "shop=1" for span in spans)
    rounds = by_part(spans, "router", "round")
    for span in rounds + by_part(spans, "router", "queue"):
        assert span.parent_id == session.span_id
    for stage in ("propose", "screen", "verify"):
        below = by_part(spans, "router", stage)
        assert below, stage
        assert {span.parent_id for span in below} <= {span.span_id for span in rounds}
    for span in spans:
        assert span.start_ns <= span.end_ns
        if parent := known.get(span.parent_id):
            # A worker on this host reads the same clock as the router, not to the microsecond.
            assert span.start_ns >= parent.start_ns - 5_000_000, (span.name, parent.name)
            assert span.end_ns <= parent.end_ns + 5_000_000, (span.name, parent.name)
    steps = by_part(spans, "worker", "step ")
    assert {span.parent_id for span in steps} <= {s.span_id for s in [session, *rounds]}
    committed = sum(s.attributes["viaserve.tokens.committed"] for s in rounds)
    prefill = by_part(spans, "router", "prefill")
    committed += sum(s.attributes["viaserve.tokens.committed"] for s in prefill)
    assert committed >= answer["usage"]["completion_tokens"]


def check_words(ingress: Received, answer: dict[str, Any]) -> None:
    told = ingress.attributes
    usage = answer["usage"]
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "smollm2-135m-instruct"
    assert told["gen_ai.request.max_tokens"] == 12
    assert told["gen_ai.request.seed"] == 7
    assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert told["gen_ai.response.id"] == answer["id"]
    assert told["gen_ai.response.finish_reasons"] == [answer["choices"][0]["finish_reason"]]
    assert told["viaserve.rounds"] == answer["viaserve"]["rounds"]
    assert told["viaserve.mode"] == "three_tier"


def check_links(collector: Collector, trace_ids: set[str]) -> None:
    """Steps that requests shared lead from one trace to the other, to the span that the other's
    own step is below."""
    shared = [s for s in collector.spans if s.part == "worker" and s.links]
    assert shared, "no two requests shared a step"
    for span in shared:
        mates = {
            (s.trace_id, s.parent_id)
            for s in collector.spans
            if s.name == span.name or s.part == "worker"
        }
        assert span.attributes["viaserve.batch"] > len(span.links)
        for trace_id, span_id in span.links:
            assert trace_id in trace_ids - {span.trace_id}
            assert (trace_id, span_id) in mates


@pytest.mark.parametrize(
    ("exporter", "config", "processes", "every_ms"),
    [
        # No export but the one at the end of each process.
        ("otlp-http", "config/two-pools.yaml", 4, 600_000),
        ("otlp-grpc", "config/default.yaml", 3, 500),
    ],
)
def test_one_trace_a_request_over_every_process(exporter, config, processes, every_ms):
    with COLLECTORS[exporter]() as collector:
        settings = [
            "model.dtype=float32",
            f"tracing.exporter={exporter}",
            f"tracing.endpoint={collector.url}",
            "tracing.sample_frac=0",
            "tracing.headers={X-Tenant: shop}",
        ]
        every = {"OTEL_BSP_SCHEDULE_DELAY": str(every_ms)}
        with serving(settings, every, config) as server:
            asked = {number: traceparent(number) for number in range(1, 5)}
            with ThreadPoolExecutor(4) as pool:
                parents = [parent for _, parent in asked.values()]
                answers = list(pool.map(lambda parent: ask(server, parent), parents))
            quiet_id, quiet = traceparent(9, sampled=False)
            ask(server, quiet)
            trace_id, parent = traceparent(8)
            streamed, _ = ask(server, parent, stream=True)
            # The last of a trace is its ingress's: by then its workers' have been told.
            wanted = {known for known, _ in asked.values()} | {trace_id}
            if every_ms < 60_000:
                collector.until(
                    lambda: wanted <= {s.trace_id for s in collector.spans if s.part == "ingress"}
                )
        # Ended: what was left has been told.
        for (known, _), (reply, answer) in zip(asked.values(), answers, strict=True):
            spans = collector.of(known)
            check_tree(spans, answer)
            [ingress] = by_part(spans, "ingress")
            check_words(ingress, answer)
            assert reply.headers["traceparent"].split("-")[1:3] == [known, ingress.span_id]
            assert len({span.pid for span in spans}) == processes
            parts = {span.part for span in spans}
            assert parts == {"ingress", "router", "worker"}
            assert ingress.resource["service.name"] == "viaserve"
        check_links(collector, {known for known, _ in asked.values()})
        assert collector.of(quiet_id) == []
        [ingress] = by_part(collector.of(trace_id), "ingress")
        assert streamed.headers["traceparent"].split("-")[2] == ingress.span_id
        assert 0 < ingress.attributes["gen_ai.response.time_to_first_chunk"] < 300
        assert all(headers["x-tenant"] == "shop" for headers in collector.headers)
        assert {span.trace_id for span in collector.spans} == wanted
