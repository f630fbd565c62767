"""Ray Serve's own tracing beside ours: one provider a process, one trace, no span twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import httpx
import pytest

from tests.observability.collector import Received, http_collector
from tests.serving.serve_cli import default_file, serve_run

pytestmark = pytest.mark.slow

EXPORTER = "infra.tracing:serve_exporter"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def above(spans: Sequence[Received]) -> list[Received]:
    """Our ingress' span and those that it is in, as far as they have come."""
    known = {span.span_id: span for span in spans}
    [ingress] = [span for span in spans if span.part == "ingress"]
    chain = [ingress]
    while chain[-1].parent_id in known:
        chain.append(known[chain[-1].parent_id])
    return chain


def test_serves_spans_and_ours_are_one_trace(tmp_path, monkeypatch: pytest.MonkeyPatch):
    with http_collector() as collector:
        # The proxy is there before the file is read: it knows the environment alone.
        monkeypatch.setenv("RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH", EXPORTER)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        file = default_file()
        serves = {"enabled": True, "exporter_import_path": EXPORTER, "sampling_ratio": 0.0}
        file["tracing_config"] = serves
        args = file["applications"][0]["args"]
        args["model"]["dtype"] = "float32"
        args["tracing"] = {"exporter": "otlp-http", "endpoint": collector.url}
        with serve_run(tmp_path / "serve.yaml", file) as run:
            body = {
                "model": args["model"]["name"],
                "messages": [{"role": "user", "content": "Hello"}],
                "max_tokens": 6,
            }
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            reply: httpx.Response = run.client.post(
                "/v1/chat/completions", json=body, headers=headers
            )
            assert reply.status_code == 200, reply.text
            assert reply.headers["traceparent"].split("-")[1] == TRACE
            wanted = {"ingress", "router", "worker"}
            collector.until(lambda: wanted <= {s.part for s in collector.of(TRACE)})
            collector.until(lambda: above(collector.of(TRACE))[-1].parent_id == CALLER)
            collector.until(lambda: any("proxy" in s.name for s in collector.of(TRACE)))
        spans = collector.of(TRACE)
    assert Counter(span.span_id for span in spans).most_common(1)[0][1] == 1
