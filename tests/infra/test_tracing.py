"""Laws of the tracing seam: one provider a process, links and parents across processes."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from infra import tracing
from infra.tracing import TracingSettings, exporter_of, open_tracer
from tests.observability.memory import Memory

ROOT = Path(__file__).resolve().parents[2]
PARENT = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),)


def test_nothing_is_traced_without_an_exporter():
    assert open_tracer(TracingSettings(), "worker") is None


def test_a_span_told_afterwards_has_its_parent_times_and_links():
    memory = Memory(sample_frac=0.0)
    tracer = memory.tracer("worker")
    link = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b8-01"),)
    tracer.span("step", PARENT, 1.5, 2.25, kind="consumer", links=[link], attributes={"n": 3})
    [span] = memory.spans
    assert (span.start_time, span.end_time) == (1_500_000_000, 2_250_000_000)
    assert span.parent.span_id == 0x00F067AA0BA902B7
    assert span.attributes["n"] == 3
    assert span.attributes["viaserve.part"] == "worker"
    [linked] = span.links
    assert linked.context.trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4737


def test_a_span_told_afterwards_goes_out_as_one_of_the_sdk_would():
    memory = Memory()
    tracer = memory.tracer("worker")
    rest = {"kind": "consumer", "links": [PARENT], "attributes": {"n": 3, "none": None}}
    own = tracer.reserve(PARENT)
    tracer.span("step", PARENT, 1.5, 2.25, own=own, **rest)
    tracer.begin("step", PARENT, start_s=1.5, **rest).end(2.25)
    told, usual = ([*encode_spans([span]).resource_spans] for span in memory.spans)
    [told_span], [usual_span] = (one[0].scope_spans[0].spans for one in (told, usual))
    assert told_span.span_id.hex() in own[0][1]
    assert told_span.span_id != usual_span.span_id
    told_span.span_id = usual_span.span_id
    assert told == usual


def test_a_collector_that_is_away_is_told_once_a_minute():
    now = [0.0]
    seldom = tracing.Seldom(60.0, lambda: now[0])
    record = logging.makeLogRecord({"msg": "Failed to export"})
    told = []
    for now[0] in (0.0, 0.5, 59.9, 60.0, 61.0, 120.0):
        told += [now[0]] if seldom.filter(record) else []
    assert told == [0.0, 60.0, 120.0]


@pytest.mark.parametrize("over", ["otlp-grpc", "otlp-http"])
def test_failed_exports_do_not_fill_the_log(over):
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = f"http://127.0.0.1:{server.getsockname()[1]}"
    code = (
        "import logging, sys, time\n"
        "from infra.tracing import TracingSettings, open_tracer\n"
        "logging.basicConfig()\n"
        f"tracer = open_tracer(TracingSettings({over!r}, {gone!r}, 1.0), 'worker')\n"
        "for _ in range(8):\n"
        "    tracer.begin('step').end()\n"
        "    time.sleep(0.6)\n"
        "import os; os._exit(0)"
    )
    often = os.environ | {"OTEL_BSP_SCHEDULE_DELAY": "500"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=often, capture_output=True, text=True)
    assert len(done.stderr.splitlines()) <= 1, done.stderr


def test_links_are_bounded():
    memory = Memory()
    memory.tracer("worker").span("step", PARENT, 1.0, 2.0, links=[PARENT] * 100)
    assert len(memory.spans[0].links) == 32


def test_a_span_that_happens_to_be_open_is_no_parent_of_ours():
    memory = Memory()
    tracer = memory.tracer("router")
    other = TracerProvider(shutdown_on_exit=False).get_tracer("other")
    with other.start_as_current_span("theirs"):
        tracer.begin("ours").end()
        tracer.enter("request", {}.get).end()
    assert [span.parent for span in memory.spans] == [None, None]


def test_an_unsampled_parent_has_unsampled_children():
    memory = Memory(sample_frac=1.0)
    parent = (("traceparent", PARENT[0][1][:-2] + "00"),)
    span = memory.tracer("router").begin("session", parent)
    assert not span.sampled
    span.end()
    assert list(memory.spans) == []


@pytest.mark.parametrize("exporter", ["otlp-grpc", "otlp-http"])
def test_the_exporter_is_what_was_asked_for(exporter):
    settings = TracingSettings(exporter, "http://127.0.0.1:9/v1/traces", headers=(("a", "b"),))
    made = exporter_of(settings)
    assert exporter.removeprefix("otlp-") in type(made).__module__
    made.shutdown()


EXTENDED = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from infra.tracing import TracingSettings, open_tracer

theirs = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(theirs))
trace.set_tracer_provider(provider)
tracer = open_tracer(TracingSettings(), "ingress")
with provider.get_tracer("serve").start_as_current_span("replica") as here:
    trace_id = f"{here.get_span_context().trace_id:032x}"
    caller = {"none": None, "same": trace_id, "other": "a" * 32}[sys.argv[1]]
    headers = {"traceparent": f"00-{caller}-" + "b" * 16 + "-01"} if caller else {}
    tracer.enter("chat", headers.get).end()
ours, replica = theirs.get_finished_spans()
assert (ours.name, replica.name) == ("chat", "replica")
above = replica.get_span_context().span_id
if sys.argv[1] == "other":
    assert f"{ours.parent.trace_id:032x}" == caller
    assert [link.context.span_id for link in ours.links] == [above]
else:
    assert ours.parent.span_id == above
    assert not ours.links
assert trace.get_tracer_provider() is provider
"""


@pytest.mark.parametrize("caller", ["none", "same", "other"])
def test_a_provider_that_is_there_is_used_and_the_callers_trace_goes_on(caller):
    # In a process of its own: a provider is set once.
    command = [sys.executable, "-c", EXTENDED, caller]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_provider_of_our_own_is_not_the_process_s(monkeypatch):
    made = []
    add = TracerProvider.add_span_processor
    monkeypatch.setattr(
        TracerProvider, "add_span_processor", lambda self, p: (made.append(p), add(self, p))
    )
    settings = TracingSettings("otlp-http", "http://127.0.0.1:9/v1/traces", service_name="x")
    tracer = open_tracer(settings, "router")
    assert tracer is not None
    assert isinstance(made[0], BatchSpanProcessor)
    assert not isinstance(tracing.trace.get_tracer_provider(), TracerProvider)
    made[0].shutdown()
