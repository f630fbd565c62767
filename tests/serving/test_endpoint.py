"""The whole line over HTTP with the real model: what a user of the OpenAI API sees."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.serving.server import Server

PROMPTS = (
    "What is the capital of France?",
    "Repeat this list twice: red, green, blue, red, green, blue.",
    "Translate to English: Guten Morgen, wie geht es dir?",
    "Write one sentence about the sea.",
)
IDLE_POLLS = 900
# What holds with noise holds without; test_long plays both over many prompts.
GREEDY = pytest.param(0.0, marks=pytest.mark.slow)


def body(prompt: str, **more: Any) -> dict[str, Any]:
    return {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 24,
        "seed": 5,
        **more,
    }


async def answer(client: httpx.AsyncClient, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    reply = await client.post("/v1/chat/completions", json=request)
    assert reply.status_code == 200, reply.text
    choice = reply.json()["choices"][0]
    return choice["message"]["content"], reply.json()["viaserve"]


async def until_idle(client: httpx.AsyncClient) -> dict[str, Any]:
    """Wait until routers and workers hold nothing; the reports come every few seconds."""
    status: dict[str, Any] = {}
    for _ in range(IDLE_POLLS):
        status = (await client.get("/ready")).json()
        held = [
            w["held_sessions"]
            + w["waiting"]
            + w["in_flight"]
            + w["matchers"]
            + sum(w["slots"].values())
            for w in status["workers"]
        ]
        if not (status["running"] or status["queued"] or any(held)):
            return status
        await asyncio.sleep(0.2)
    raise AssertionError(json.dumps(status))


@pytest.fixture
async def client(server: Server) -> Any:
    async with httpx.AsyncClient(base_url=server.url, timeout=300.0) as session:
        yield session


async def test_stock_client_chats_streams_and_completes(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        models = [model.id async for model in client.models.list()]
        chat = await client.chat.completions.create(
            model=models[0],
            messages=[{"role": "user", "content": PROMPTS[0]}],
            temperature=0,
            max_tokens=16,
        )
        assert "Paris" in (chat.choices[0].message.content or "")
        stream = await client.chat.completions.create(
            model=models[0],
            messages=[{"role": "user", "content": PROMPTS[0]}],
            temperature=0,
            max_tokens=16,
            stream=True,
        )
        pieces = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "".join(pieces) == chat.choices[0].message.content
        text = await client.completions.create(
            model=models[0], prompt="One, two, three,", max_tokens=8, temperature=0
        )
        assert text.usage is not None
        assert text.usage.completion_tokens == 8


@pytest.mark.parametrize("temperature", [GREEDY, 0.8])
async def test_every_mode_gives_the_bytes_of_plain_decoding(
    client: httpx.AsyncClient, temperature: float
) -> None:
    rng = random.Random(temperature)
    plain = [
        (await answer(client, body(p, temperature=temperature, viaserve={"mode": "off"})))[0]
        for p in PROMPTS
    ]
    requests = [
        body(
            prompt,
            temperature=temperature,
            viaserve={"mode": mode, "gamma": rng.randint(1, 8), "block": rng.randint(1, 12)},
        )
        for mode in ("two_tier", "three_tier")
        for prompt in PROMPTS
    ]
    together = await asyncio.gather(*(answer(client, request) for request in requests))
    assert [text for text, _ in together] == plain * 2
    for request, (_, extension) in zip(requests, together, strict=True):
        assert extension["mode"] == request["viaserve"]["mode"]
        assert extension["exact"] is True


@pytest.mark.slow
async def test_penalties_and_filters_do_not_break_exactness(client: httpx.AsyncClient) -> None:
    sampling = {
        "temperature": 1.1,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.02,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.4,
        "repetition_penalty": 1.1,
        "logit_bias": {"30": 1.5},
    }
    texts = {
        (await answer(client, body(PROMPTS[1], **sampling, viaserve={"mode": mode})))[0]
        for mode in ("off", "two_tier", "three_tier")
    }
    assert len(texts) == 1


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_via_with_a_closed_gate_gives_the_bytes_of_plain_decoding(
    client: httpx.AsyncClient, temperature: float
) -> None:
    for prompt in PROMPTS[1:3]:
        asked = body(prompt, temperature=temperature)
        plain, _ = await answer(client, asked | {"viaserve": {"mode": "off"}})
        extension = {"mode": "via", "theta_accept": 1.0, "gamma": 3}
        text, told = await answer(client, asked | {"viaserve": extension})
        assert (text, told["exact"], told["unseen"]) == (plain, True, 0)


async def test_a_lossy_answer_is_labelled_and_repeats_itself(client: httpx.AsyncClient) -> None:
    """What the cheap tiers commit depends on the request alone, not on what it is batched with."""
    extension = {"mode": "via", "theta_accept": 0.3, "theta_escalate": 0.0}
    # Few enough tokens for the audit to leave the gate as it is.
    asked = body(PROMPTS[1], temperature=0.8, max_tokens=32, viaserve=extension)
    answers = await asyncio.gather(*(answer(client, asked) for _ in range(2)))
    assert {told["audit"]["level"] for _, told in answers} == {0}
    assert len({text for text, _ in answers}) == 1
    told = answers[0][1]
    assert (told["mode"], told["exact"]) == ("via", False)
    assert told["unseen"] > 0
    assert 0 <= told["audit"]["bound"] <= 1
    await until_idle(client)


async def test_logprobs_are_the_full_models_in_every_mode(client: httpx.AsyncClient) -> None:
    told = []
    for mode in ("off", "two_tier", "three_tier"):
        asked = {"temperature": 0.8, "ignore_eos": True, "logprobs": True, "top_logprobs": 3}
        request = body(PROMPTS[1], **asked)
        reply = await client.post(
            "/v1/chat/completions", json=request | {"viaserve": {"mode": mode}}
        )
        told.append(reply.json()["choices"][0]["logprobs"]["content"])
    assert len(told[0]) == 24
    assert all(entry["top_logprobs"][0]["logprob"] >= entry["logprob"] for entry in told[0])
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"\xff\xfe{", 400),
        (b"x" * (1 << 20), 400),
        (json.dumps(body("hi") | {"model": "nobody"}).encode(), 404),
        (json.dumps(body("hi", max_tokens=0)).encode(), 400),
        (json.dumps(body("hi", temperature=-1)).encode(), 400),
        (json.dumps(body("word " * 3000)).encode(), 400),
        (json.dumps(body("hi", stop=["a"] * 10_000)).encode(), 400),
    ],
    ids=["utf8", "garbage", "model", "max_tokens", "temperature", "too long", "stops"],
)
async def test_bad_input_is_refused_and_the_server_goes_on(
    client: httpx.AsyncClient, content: bytes, status: int
) -> None:
    reply = await client.post("/v1/chat/completions", content=content)
    assert reply.status_code == status, reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    text, _ = await answer(client, body(PROMPTS[0], temperature=0))
    assert text


async def test_a_full_queue_is_refused_with_retry_after(client: httpx.AsyncClient) -> None:
    request = body(PROMPTS[3], ignore_eos=True, n=4, max_tokens=16)
    replies = await asyncio.gather(
        *(client.post("/v1/chat/completions", json=request) for _ in range(12))
    )
    refused = [r for r in replies if r.status_code == 429]
    assert refused
    assert all(int(r.headers["retry-after"]) >= 1 for r in refused)
    assert all(r.status_code == 200 for r in replies if r not in refused)
    await until_idle(client)


@pytest.mark.parametrize("mode", ["off", "three_tier"])
async def test_a_client_that_leaves_frees_every_tier(client: httpx.AsyncClient, mode: str) -> None:
    request = body(PROMPTS[3], ignore_eos=True, max_tokens=512, stream=True)
    request["viaserve"] = {"mode": mode}
    async with client.stream("POST", "/v1/chat/completions", json=request) as reply:
        async for line in reply.aiter_lines():
            if '"content":" ' in line or '"content":"' in line:
                break
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/v1/chat/completions", json=request | {"stream": False}, timeout=1.0)
    await until_idle(client)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_is_over_is_told_and_frees_every_tier(
    client: httpx.AsyncClient, stream: bool
) -> None:
    request = body("Write a long story.", max_tokens=500, ignore_eos=True, stream=stream)
    given = {"X-Request-Timeout-Seconds": "0.01"}
    reply = await client.post("/v1/chat/completions", json=request, headers=given)
    assert (reply.status_code, reply.headers["content-type"]) == (408, "text/plain; charset=utf-8")
    await until_idle(client)


@pytest.mark.slow
async def test_a_deadline_within_a_stream_breaks_it_and_frees_every_tier(
    client: httpx.AsyncClient,
) -> None:
    request = body("Write a long story.", max_tokens=500, ignore_eos=True, stream=True)
    came: list[str] = []

    async def read() -> None:
        headers = {"X-Request-Timeout-Seconds": "15"}
        url = "/v1/chat/completions"
        async with client.stream("POST", url, json=request, headers=headers) as reply:
            async for text in reply.aiter_text():
                came.append(text)

    with pytest.raises(httpx.RemoteProtocolError):
        await read()
    said = "".join(came)
    assert '"content"' in said
    assert "error" not in said
    assert "[DONE]" not in said
    await until_idle(client)


async def test_a_killed_worker_changes_no_byte(server: Server, client: httpx.AsyncClient) -> None:
    request = body(PROMPTS[3], temperature=0.8, ignore_eos=True, max_tokens=24)
    request["viaserve"] = {"mode": "two_tier"}
    whole, _ = await answer(client, request)
    status = server.ready()
    victim = next(w["pid"] for w in status["workers"] if "full" in w["tiers"])
    pieces: list[str] = []
    async with client.stream("POST", "/v1/chat/completions", json=request | {"stream": True}) as r:
        async for line in r.aiter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line[6:])["choices"]:
                pieces.append(choice["delta"].get("content") or "")
            if len(pieces) == 4:
                psutil.Process(victim).kill()
    assert "".join(pieces) == whole
    await until_idle(client)
