"""Spans out to OpenTelemetry: begun here and ended there, or told after the fact, with parents
and links in other processes. It knows no domain: names, times and attributes are told.

Where the process has a tracer provider already (Ray Serve's `tracing_config` sets one), that one
is used and only gets our exporter as well; else the process gets one of its own. Export runs on a
thread of its own, in batches.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_SCOPE = "viaserve"
_INSTRUMENTATION = InstrumentationScope(_SCOPE)
_DELAY = "OTEL_BSP_SCHEDULE_DELAY"
_EVERY_MS = 2_000.0
"""Between two exports, where the environment has no other word. An export is milliseconds of the
processor, however little it has to tell; what a process that is killed had not yet told is lost."""
_TELLS_FAILURES = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
_MAX_QUEUED = 16_384
_MAX_LINKS = 32

Carrier = tuple[tuple[str, str], ...]
"""A span as other processes know it: W3C's `traceparent`, and `tracestate` where there is one."""
Kind = Literal["server", "internal", "consumer"]
_KINDS = {
    "server": SpanKind.SERVER,
    "internal": SpanKind.INTERNAL,
    "consumer": SpanKind.CONSUMER,
}


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where spans go, and how many requests have any. `sample_frac`: of those that come without
    a decision of their caller's. `endpoint`: None leaves it to OpenTelemetry's environment
    variables, whose default is this host."""

    exporter: Literal["none", "otlp-grpc", "otlp-http"] = "none"
    endpoint: str | None = None
    sample_frac: float = 0.1
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    service_name: str = "viaserve"


class Span:
    """A span that has begun. One that is not sampled costs next to nothing."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def sampled(self) -> bool:
        """Whether anybody will see it."""
        return self._span.get_span_context().trace_flags.sampled

    @property
    def carrier(self) -> Carrier:
        """For children and links elsewhere, and for the caller."""
        told: dict[str, str] = {}
        _PROPAGATOR.inject(told, trace.set_span_in_context(self._span))
        return tuple(told.items())

    def rename(self, name: str) -> None:
        """Where the name is known only later."""
        self._span.update_name(name)

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes; None is left out."""
        self._span.set_attributes(_known(attributes))

    def fail(self, kind: str, message: str = "") -> None:
        """It ends in an error of this kind."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR, message or None))

    def end(self, end_s: float | None = None) -> None:
        """Now, or at a time in seconds of the wall clock."""
        self._span.end(None if end_s is None else _nanos(end_s))


class Tracer:
    """A process's way to its spans. `part` is an attribute of each of them."""

    def __init__(self, provider: TracerProvider, part: str, *, extends: bool = False) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(_SCOPE)
        self._part = {"viaserve.part": part, "process.pid": os.getpid()}
        self._extends = extends

    def begin(
        self,
        name: str,
        parent: Carrier = (),
        *,
        kind: Kind = "internal",
        start_s: float | None = None,
        attributes: Mapping[str, Any] | None = None,
        links: Iterable[Carrier] = (),
    ) -> Span:
        """A span that begins now, or at a time of the wall clock; without a parent, that of a
        new trace, which may be sampled or not."""
        span = self._tracer.start_span(
            name,
            _below(parent),
            kind=_KINDS[kind],
            attributes=self._part | _known(attributes or {}),
            links=_links(links),
            start_time=None if start_s is None else _nanos(start_s),
        )
        return Span(span)

    def enter(self, name: str, headers: Callable[[str], str | None]) -> Span:
        """The span of a request that comes in, below the caller's by its `headers`.

        Whoever set up the process's provider may have a span open here. It is the parent where
        it belongs to the caller's trace, or there is no caller; else there is a link to it.
        """
        told = ((key, headers(key)) for key in ("traceparent", "tracestate"))
        caller = tuple((key, value) for key, value in told if value)
        here = trace.get_current_span()
        if not self._extends or not here.get_span_context().is_valid:
            return self.begin(name, caller, kind="server")
        above = _context_of(caller)
        if not above.is_valid or above.trace_id == here.get_span_context().trace_id:
            return self.begin(name, Span(here).carrier, kind="server")
        return self.begin(name, caller, kind="server", links=[Span(here).carrier])

    def reserve(self, parent: Carrier) -> Carrier:
        """For a span below a sampled one that is told when it is over: what others know it by."""
        return Span(trace.NonRecordingSpan(self._new_below(_context_of(parent)))).carrier

    def span(
        self,
        name: str,
        parent: Carrier,
        start_s: float,
        end_s: float,
        *,
        own: Carrier = (),
        kind: Kind = "internal",
        attributes: Mapping[str, Any] | None = None,
        links: Iterable[Carrier] = (),
    ) -> None:
        """A span that is over, below a sampled one; times of the wall clock. `own`: as reserved.

        It goes to the exporters as it is. The SDK's way over a span that is open checks and copies
        each attribute and takes a lock, seven times the time: much, with four of them a round.
        """
        if not isinstance(self._tracer, SdkTracer):  # OTEL_SDK_DISABLED
            return
        above = _context_of(parent)
        self._tracer.span_processor.on_end(
            ReadableSpan(
                name,
                context=_context_of(own) if own else self._new_below(above),
                parent=above,
                resource=self._tracer.resource,
                attributes=self._part | _known(attributes or {}),
                links=_links(links),
                kind=_KINDS[kind],
                start_time=_nanos(start_s),
                end_time=_nanos(end_s),
                instrumentation_scope=_INSTRUMENTATION,
            )
        )

    def _new_below(self, above: trace.SpanContext) -> trace.SpanContext:
        number = self._provider.id_generator.generate_span_id()
        return trace.SpanContext(
            above.trace_id, number, False, above.trace_flags, above.trace_state
        )

    def flush(self) -> None:
        """Export what there is; blocks for as long as an export may take."""
        self._provider.force_flush()


_EMPTY = trace.set_span_in_context(trace.INVALID_SPAN)
"""A context that does not take a span that happens to be open here for the parent."""


def open_tracer(settings: TracingSettings, part: str) -> Tracer | None:
    """The process's tracer; None where nothing is traced. To be called once."""
    there = trace.get_tracer_provider()
    extends = isinstance(there, TracerProvider)
    if settings.exporter == "none" and not extends:
        return None
    provider = there if isinstance(there, TracerProvider) else _provider(settings)
    if settings.exporter != "none" and not _serve_exports:
        provider.add_span_processor(_batches(exporter_of(settings)))
    return Tracer(provider, part, extends=extends)


_serve_exports = False


def serve_exporter() -> list[SpanProcessor]:
    """For `exporter_import_path` of Ray Serve's `tracing_config`: its spans go out by OTLP as
    OpenTelemetry's environment variables say, and ours of the same processes with them."""
    global _serve_exports
    _serve_exports = True
    over = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    exporter = "otlp-grpc" if over == "grpc" else "otlp-http"
    return [_batches(exporter_of(TracingSettings(exporter)))]


class Seldom(logging.Filter):
    """Lets one record through, and the next when `every_s` are over: a collector that is away
    fails every export, of each process, for as long as that lasts."""

    def __init__(self, every_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._after_s = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is told."""
        now = self._clock()
        if now < self._after_s:
            return False
        self._after_s = now + self._every_s
        return True


_SELDOM = Seldom()


def _batches(exporter: SpanExporter) -> BatchSpanProcessor:
    for module in _TELLS_FAILURES:
        logging.getLogger(module).addFilter(_SELDOM)
    every_ms = None if _DELAY in os.environ else _EVERY_MS
    return BatchSpanProcessor(exporter, max_queue_size=_MAX_QUEUED, schedule_delay_millis=every_ms)


def _provider(settings: TracingSettings) -> TracerProvider:
    sampler = ParentBased(TraceIdRatioBased(settings.sample_frac))
    return TracerProvider(sampler, Resource.create({"service.name": settings.service_name}))


def exporter_of(settings: TracingSettings) -> SpanExporter:
    """The exporter, over gRPC or HTTP; https in the endpoint asks for TLS."""
    headers = dict(settings.headers) or None
    if settings.exporter == "otlp-grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

        return grpc.OTLPSpanExporter(endpoint=settings.endpoint, headers=headers)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    return http.OTLPSpanExporter(endpoint=settings.endpoint, headers=headers)


def _links(carriers: Iterable[Carrier]) -> list[Link]:
    return [Link(_context_of(carrier)) for carrier in list(carriers)[:_MAX_LINKS]]


@lru_cache(maxsize=1024)
def _context_of(carrier: Carrier) -> trace.SpanContext:
    """A round is asked for several times, by the spans below it and by links to it."""
    return trace.get_current_span(_below(carrier)).get_span_context()


def _below(carrier: Carrier) -> Context:
    """The context of its children."""
    return _PROPAGATOR.extract(dict(carrier), context=_EMPTY)


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if value is not None}


def _nanos(seconds: float) -> int:
    return int(seconds * 1e9)
