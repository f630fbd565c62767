"""A tracer whose spans stay in memory."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from infra.tracing import Carrier, Tracer


class Memory:
    """Tracers of several parts that tell the same list; `sample_frac` of new traces."""

    def __init__(self, sample_frac: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        self._sampler = ParentBased(TraceIdRatioBased(sample_frac))

    def tracer(self, part: str) -> Tracer:
        provider = TracerProvider(self._sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        return Tracer(provider, part)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, *names: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name in names]


def carrier_of(span: ReadableSpan) -> Carrier:
    context = span.get_span_context()
    flags = int(context.trace_flags)
    return (("traceparent", f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"),)


def parent_of(span: ReadableSpan, spans: Sequence[ReadableSpan]) -> ReadableSpan | None:
    wanted = span.parent and span.parent.span_id
    return next((s for s in spans if s.get_span_context().span_id == wanted), None)
