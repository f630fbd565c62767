"""Laws of the HTTP edge: keys, request ids, refusals, failures, clients that leave."""

from __future__ import annotations

import asyncio
import dataclasses

import httpx
import pytest

from actors.ingress.app import create_app
from actors.ingress.errors import Overloaded, Unavailable
from policies.vocabulary import FinishReason
from tests.ingress.conftest import chat_body, completion_body, events_of
from tests.ingress.fakes import RawClient

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
BODIES = {CHAT: chat_body, COMPLETIONS: completion_body}
STREAMS = pytest.mark.parametrize("stream", [True, False])
PATHS = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])


@pytest.fixture
async def locked(settings, codec, backend, no_leaks):
    """A client of a server with two keys."""
    app = create_app(dataclasses.replace(settings, api_keys=("one", "two")), codec, backend)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingress") as http:
        yield http


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer one", 200),
        ("bearer two", 200),
        ("Bearer three", 401),
        ("Bearer on", 401),
        ("Bearer ", 401),
        ("Basic one", 401),
        ("one", 401),
        ("Bearer \xe9", 401),
        (None, 401),
    ],
)
async def test_only_a_key_opens_the_api(locked, backend, header, status):
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    response = await locked.post(CHAT, json=chat_body(), headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["x-request-id"]
        assert backend.requests == []


@pytest.mark.parametrize(
    ("path", "status"),
    [("/health", 200), ("/ready", 200), ("/version", 200), ("/v1/models", 401), ("/x", 401)],
)
async def test_probes_need_no_key(locked, path, status):
    assert (await locked.get(path)).status_code == status


async def test_readiness_is_a_status(client, backend):
    assert (await client.get("/ready")).status_code == 200
    backend.is_ready = False
    response = await client.get("/ready")
    assert (response.status_code, response.json()) == (503, {"full": 1})


async def test_the_model_is_listed_under_each_of_its_names(client):
    listed = (await client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["org/tiny", "tiny"]
    for model in listed["data"]:
        assert (await client.get(f"/v1/models/{model['id']}")).json() == model
    missing = await client.get("/v1/models/other")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/nowhere", "/health"])
@pytest.mark.parametrize("given", ["abc-123", "x" * 128, "a b/c:d"])
async def test_a_printable_request_id_comes_back(client, path, given):
    response = await client.get(path, headers={"x-request-id": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, "é".encode(), b"a\x7fb", b"a\tb"])
async def test_any_other_request_id_is_replaced(client, given):
    first, second = [
        (await client.get("/health", headers={"x-request-id": given})).headers["x-request-id"]
        for _ in range(2)
    ]
    assert first.isalnum()
    assert first != second


@STREAMS
@PATHS
async def test_overload_is_429_before_any_event(client, backend, path, stream):
    backend.refusal = Overloaded(2.3)
    response = await client.post(path, json=BODIES[path](stream=stream))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"]["code"] == "rate_limit_exceeded"


@STREAMS
async def test_an_unavailable_backend_is_503(client, backend, stream):
    backend.refusal = Unavailable("no full worker")
    response = await client.post(CHAT, json=chat_body(stream=stream))
    assert response.status_code == 503
    assert response.json()["error"]["message"] == "no full worker"


@STREAMS
async def test_a_failure_of_ours_is_500_without_its_cause_and_is_logged(
    client, backend, stream, caplog
):
    backend.refusal = ZeroDivisionError("secret")
    headers = {"x-request-id": "find-me"}
    response = await client.post(CHAT, json=chat_body(stream=stream), headers=headers)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "find-me"
    assert "find-me" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("failure", "code"),
    [(Unavailable("gone"), "unavailable"), (KeyError("secret"), "internal_error")],
)
@PATHS
async def test_a_failure_in_a_stream_is_its_last_event(client, backend, path, failure, code):
    backend.failure, backend.fail_after = failure, 2
    response = await client.post(path, json=BODIES[path](stream=True))
    assert response.status_code == 200
    events = events_of(response.text)
    assert events[-1]["error"]["code"] == code
    assert "[DONE]" not in events
    assert "secret" not in response.text


@STREAMS
async def test_a_backend_that_ends_early_is_no_answer(client, backend, monkeypatch, stream):
    async def generate(request):
        return
        yield

    monkeypatch.setattr(backend, "generate", generate)
    response = await client.post(CHAT, json=chat_body(stream=stream))
    assert response.status_code == 503


async def test_a_session_that_the_backend_cancels_is_no_answer(client, backend, monkeypatch):
    whole = backend.generate

    async def generate(request):
        async for index, commit in whole(request):
            yield index, dataclasses.replace(commit, finish=FinishReason.CANCELLED)

    monkeypatch.setattr(backend, "generate", generate)
    assert (await client.post(CHAT, json=chat_body())).status_code == 503


@STREAMS
@PATHS
@pytest.mark.parametrize("hang_after", [0, 3])
async def test_a_client_that_leaves_cancels_its_request(
    app, backend, no_leaks, path, stream, hang_after
):
    backend.hang_after = hang_after
    raw = RawClient(app, path, BODIES[path](stream=stream, n=2))
    running = asyncio.create_task(raw.run())
    await backend.silent.wait()
    assert backend.num_cancelled == 0
    raw.leave()
    await asyncio.wait_for(running, 10)
    assert (backend.num_completed, backend.num_cancelled) == (0, 1)


async def test_a_client_that_cannot_keep_up_is_cancelled_when_it_leaves(app, backend, no_leaks):
    raw = RawClient(app, CHAT, chat_body(stream=True))
    stuck = asyncio.Event()

    async def send(message):
        if message["type"] == "http.response.body":
            stuck.set()
            await asyncio.Event().wait()

    raw._send = send
    running = asyncio.create_task(raw.run())
    await stuck.wait()
    raw.leave()
    await asyncio.wait_for(running, 10)
    assert backend.num_cancelled == 1


@STREAMS
async def test_a_server_that_shuts_down_cancels_its_requests(app, backend, no_leaks, stream):
    backend.hang_after = 3
    running = asyncio.create_task(RawClient(app, CHAT, chat_body(stream=stream)).run())
    await backend.silent.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert backend.num_cancelled == 1


async def test_text_is_sent_as_soon_as_it_is_committed(app, backend, no_leaks):
    backend.hang_after = 3
    raw = RawClient(app, CHAT, chat_body(stream=True))
    running = asyncio.create_task(raw.run())
    await backend.silent.wait()
    sent = b"".join(message.get("body", b"") for message in raw.sent)
    assert b"he" in sent
    raw.leave()
    await asyncio.wait_for(running, 10)


async def test_a_client_that_leaves_before_its_body_is_read_costs_nothing(app, backend, no_leaks):
    raw = RawClient(app, CHAT, chat_body())
    raw._body_read = True
    raw.leave()
    await asyncio.wait_for(raw.run(), 10)
    assert backend.requests == []
