"""A tiny OTLP receiver, over HTTP or gRPC, that keeps the spans it is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service


@dataclass(frozen=True)
class Received:
    """A span as it came. Ids in hexadecimal, as in `traceparent`."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    state: str
    resource: dict[str, Any]

    @property
    def part(self) -> str:
        return self.attributes.get("viaserve.part", "")

    @property
    def pid(self) -> int:
        return self.attributes.get("process.pid", 0)


@dataclass
class Collector:
    """What has come so far; `url` is where to send."""

    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    _spans: list[Received] = field(default_factory=list)
    _came: threading.Condition = field(default_factory=threading.Condition)

    def take(self, request: messages.ExportTraceServiceRequest, headers: dict[str, str]) -> None:
        with self._came:
            self._spans += spans_of(request)
            self.headers.append(headers)
            self._came.notify_all()

    @property
    def spans(self) -> list[Received]:
        with self._came:
            return list(self._spans)

    def of(self, trace_id: str) -> list[Received]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def until(self, holds: Callable[[], object], timeout_s: float = 60.0) -> None:
        with self._came:
            assert self._came.wait_for(holds, timeout_s), [s.name for s in self._spans]


def spans_of(request: messages.ExportTraceServiceRequest) -> Iterator[Received]:
    for resource in request.resource_spans:
        about = _values(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=span.kind,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_values(span.attributes),
                    links=tuple((li.trace_id.hex(), li.span_id.hex()) for li in span.links),
                    state=span.trace_state,
                    resource=about,
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


@contextmanager
def http_collector() -> Iterator[Collector]:
    """OTLP over HTTP, in protobuf, on a port that is free."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces", self.path
            request = messages.ExportTraceServiceRequest.FromString(body)
            collector.take(request, {k.lower(): v for k, v in self.headers.items()})
            answer = messages.ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def grpc_collector() -> Iterator[Collector]:
    """OTLP over gRPC, on a port that is free."""
    collector = Collector()

    class Traces(service.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            collector.take(request, dict(context.invocation_metadata()))
            return messages.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    service.add_TraceServiceServicer_to_server(Traces(), server)
    collector.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(grace=None).wait()
