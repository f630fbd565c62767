"""Laws of the request's span: the caller's trace goes on, in words for generative AI, and holds
no text."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from actors.ingress.app import create_app
from actors.ingress.errors import Overloaded, Unavailable
from tests.ingress.conftest import chat_body, completion_body, events_of
from tests.ingress.fakes import RawClient
from tests.observability.memory import Memory

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STREAMS = pytest.mark.parametrize("stream", [True, False])


def caller(flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{CALLER}-{flags}", "tracestate": "shop=1"}


@pytest.fixture
def memory() -> Memory:
    return Memory(sample_frac=0.0)


@pytest.fixture
async def traced(settings, codec, backend, schemas, memory, no_leaks):
    app = create_app(settings, codec, backend, schemas, tracer=memory.tracer("ingress"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingress") as http:
        yield http


@STREAMS
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_the_callers_trace_goes_on(traced, backend, memory, path, stream):
    make = chat_body if path == CHAT else completion_body
    body = make(stream=stream, seed=5, temperature=0.5, top_k=7, max_tokens=20)
    reply = await traced.post(path, json=body, headers=caller())
    [span] = memory.spans
    context = span.get_span_context()
    assert f"{context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == CALLER
    assert context.trace_state.get("shop") == "1"
    assert reply.headers["traceparent"].startswith(f"00-{TRACE}-{context.span_id:016x}-")
    operation = "chat" if path == CHAT else "text_completion"
    assert span.name == f"{operation} org/tiny"
    told = dict(span.attributes)
    assert told["gen_ai.operation.name"] == operation
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "org/tiny"
    assert told["gen_ai.request.max_tokens"] == 20
    assert told["gen_ai.request.seed"] == 5
    assert told["gen_ai.request.temperature"] == 0.5
    assert told["gen_ai.request.top_k"] == 7
    assert told["gen_ai.request.stream"] is stream
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["http.response.status_code"] == 200
    assert told["viaserve.rounds"] > 0
    assert ("gen_ai.response.time_to_first_chunk" in told) is stream
    if not stream:
        usage = reply.json()["usage"]
        assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
        assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
        assert told["gen_ai.response.id"] == reply.json()["id"]
    by_tier = sum(told[f"viaserve.tokens.{tier}"] for tier in ("draft", "slim", "full"))
    assert by_tier == told["gen_ai.usage.output_tokens"]
    [request] = backend.requests
    trace = dict(request.timed.trace)
    assert trace["traceparent"] == reply.headers["traceparent"]
    assert trace["tracestate"] == "shop=1"
    assert not request.timed.told


@pytest.mark.parametrize("headers", [caller("00"), {}, {"traceparent": "nonsense"}])
async def test_an_unsampled_request_tells_nothing_but_goes_on(traced, backend, memory, headers):
    reply = await traced.post(CHAT, json=chat_body(), headers=headers)
    assert reply.status_code == 200
    assert list(memory.spans) == []
    assert backend.requests[0].timed is None
    version, trace_id, _, flags = reply.headers["traceparent"].split("-")
    assert (version, int(flags, 16) & 1) == ("00", 0)
    if headers == caller("00"):
        assert trace_id == TRACE


async def test_a_share_of_the_others_is_sampled(settings, codec, backend, schemas, no_leaks):
    memory = Memory(sample_frac=0.5)
    app = create_app(settings, codec, backend, schemas, tracer=memory.tracer("ingress"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingress") as http:
        for _ in range(40):
            await http.post(CHAT, json=chat_body(max_tokens=1))
    assert 5 < len(memory.spans) < 35
    assert len({span.get_span_context().trace_id for span in memory.spans}) == len(memory.spans)


@STREAMS
@pytest.mark.parametrize(
    ("refusal", "status", "is_ours"),
    [(Overloaded(1.0), 429, False), (Unavailable("no"), 503, True), (KeyError("x"), 500, True)],
)
async def test_a_refusal_is_told_with_its_status(
    traced, backend, memory, refusal, status, is_ours, stream
):
    backend.refusal = refusal
    reply = await traced.post(CHAT, json=chat_body(stream=stream), headers=caller())
    assert reply.status_code == status
    assert reply.headers["traceparent"].split("-")[1] == TRACE
    [span] = memory.spans
    assert span.attributes["http.response.status_code"] == status
    assert span.attributes["error.type"] == ("KeyError" if status == 500 else str(status))
    assert span.status.is_ok is not is_ours


async def test_a_bad_request_is_told_without_being_an_error_of_ours(traced, memory):
    reply = await traced.post(CHAT, json=chat_body(nonsense=1), headers=caller())
    assert reply.status_code == 400
    [span] = memory.spans
    assert span.status.is_ok
    assert span.attributes["error.type"] == "400"


async def test_a_stream_that_breaks_tells_what_there_was(traced, backend, memory):
    backend.failure, backend.fail_after = Unavailable("lost"), 2
    reply = await traced.post(CHAT, json=chat_body(stream=True), headers=caller())
    assert "error" in events_of(reply.text)[-1]
    [span] = memory.spans
    assert span.attributes["gen_ai.usage.output_tokens"] == 4
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["gen_ai.response.finish_reasons"] == ("error",)
    assert not span.status.is_ok


async def test_a_client_that_leaves_ends_the_span(settings, codec, backend, schemas, no_leaks):
    memory = Memory()
    backend.hang_after = 2
    app = create_app(settings, codec, backend, schemas, tracer=memory.tracer("ingress"))
    client = RawClient(app, CHAT, chat_body(stream=True))

    async def leave() -> None:
        await client.got_body.wait()
        await backend.silent.wait()
        client.leave()

    await asyncio.gather(client.run(), leave())
    [span] = memory.spans
    assert span.attributes["error.type"] == "ClientGone"
    assert span.status.is_ok
    assert span.attributes["gen_ai.usage.output_tokens"] == 4


async def test_no_text_is_told(traced, memory):
    body = chat_body(stop="zebra", messages=[{"role": "user", "content": "secret words"}])
    await traced.post(CHAT, json=body, headers=caller())
    [span] = memory.spans
    assert not any(
        text in str(value)
        for value in span.attributes.values()
        for text in ("secret", "zebra", "hello")
    )


async def test_without_a_tracer_there_is_no_header(client):
    reply = await client.post(CHAT, json=chat_body(), headers=caller())
    assert "traceparent" not in reply.headers
