"""Structured output over HTTP: answers validate, and every exact mode gives the same bytes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pydantic
import pytest

from tests.serving.server import Server, serving
from tests.serving.test_endpoint import PROMPTS, body, client, until_idle
from tests.serving.test_long import prompts

__all__ = ["client", "prompts"]

MODES = ("off", "two_tier", "three_tier")
NUM_PROMPTS = 50
REPLY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string", "maxLength": 16},
        "certain": {"type": "boolean"},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
        "kind": {"enum": ["fact", "opinion", "other"]},
    },
    "required": ["answer", "certain", "words", "kind"],
    "additionalProperties": False,
}


def constrained(prompt: str, mode: str, temperature: float, max_tokens: int) -> dict[str, Any]:
    schema = {"name": "reply", "schema": REPLY, "strict": True}
    return body(
        prompt,
        temperature=temperature,
        max_tokens=max_tokens,
        response_format={"type": "json_schema", "json_schema": schema},
        viaserve={"mode": mode, "gamma": 3, "block": 6},
    )


async def answer(session: httpx.AsyncClient, request: dict[str, Any]) -> tuple[str, str]:
    reply = await session.post("/v1/chat/completions", json=request)
    assert reply.status_code == 200, reply.text
    assert reply.json()["viaserve"]["exact"] is True
    choice = reply.json()["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


def assert_valid(text: str, finish: str) -> None:
    assert finish == "stop", text
    jsonschema.validate(json.loads(text), REPLY)


@pytest.mark.slow  # tests/engine/test_constrained_tiers.py plays it without a server
@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_answers_validate_and_are_the_same_in_every_mode(
    client: httpx.AsyncClient, temperature: float
) -> None:
    asked = [constrained(PROMPTS[0], mode, temperature, 100) for mode in MODES]
    answers = await asyncio.gather(*(answer(client, request) for request in asked))
    assert len(set(answers)) == 1
    assert_valid(*answers[0])
    status = await until_idle(client)
    assert all(worker["matchers"] == 0 for worker in status["workers"])


async def test_an_answer_cut_at_max_tokens_ends_with_length(client: httpx.AsyncClient) -> None:
    text, finish = await answer(client, constrained(PROMPTS[3], "two_tier", 0.0, 5))
    assert finish == "length"
    assert text.startswith("{")


async def test_the_stock_client_parses_its_own_type(server: Server) -> None:
    class Capital(pydantic.BaseModel):
        city: str = pydantic.Field(max_length=16)

    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as session:
        completion = await session.chat.completions.parse(
            model="smollm2-135m-instruct",
            messages=[{"role": "user", "content": PROMPTS[0]}],
            response_format=Capital,
            temperature=0,
            max_tokens=32,
        )
    assert isinstance(completion.choices[0].message.parsed, Capital)


async def test_an_unsupported_schema_is_refused(client: httpx.AsyncClient) -> None:
    request = constrained(PROMPTS[0], "off", 0.0, 8)
    request["response_format"]["json_schema"]["schema"] = {"not": {"type": "string"}}
    reply = await client.post("/v1/chat/completions", json=request)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["param"] == "response_format.json_schema.schema"
    assert "not" in error["message"]


@pytest.mark.slow
async def test_answers_to_many_prompts_validate_in_every_mode(prompts: Path) -> None:
    lines = prompts.read_text().splitlines()
    turns = [turn for line in lines for turn in json.loads(line)["turns"]]
    with serving(["router.max_queued=4000"]) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=1800.0) as session:
            for temperature in (0.0, 0.8):
                answers = [
                    await asyncio.gather(
                        *(
                            answer(session, constrained(prompt, mode, temperature, 160))
                            for prompt in turns[:NUM_PROMPTS]
                        )
                    )
                    for mode in MODES
                ]
                assert answers[1:] == answers[:1] * (len(MODES) - 1)
                for text, finish in answers[0]:
                    assert_valid(text, finish)
            await until_idle(session)
