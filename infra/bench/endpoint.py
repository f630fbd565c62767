"""A running OpenAI-compatible server as a target: streamed chat completions over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx

from infra.bench.options import DEFAULT, BenchError, BenchOptions
from infra.bench.sample import Sample
from infra.bench.schedule import Question

EXTENSION = "viaserve"
DONE = "[DONE]"
_ERROR_CHARS = 200


def connect(options: BenchOptions, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """A client for the server's /v1; `url` may end in /v1 or not."""
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    most = max(options.concurrency)
    return httpx.AsyncClient(
        base_url=options.url.rstrip("/").removesuffix("/v1") + "/v1/",
        headers=headers,
        timeout=options.timeout_s,
        limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
        transport=transport,
    )


async def first_model(client: httpx.AsyncClient) -> str:
    """The first model that the server lists. Raises BenchError."""
    try:
        answer = await client.get("models")
        answer.raise_for_status()
        return str(answer.json()["data"][0]["id"])
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        hint = "; give its key with --api-key or VIASERVE_API_KEY" if status == 401 else ""
        raise BenchError(f"{client.base_url}models answers {status}{hint}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BenchError(f"no server answers at {client.base_url}: {describe(error)}") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BenchError(f"{client.base_url}models lists no model") from error


class Endpoint:
    """Asks one model of one server."""

    def __init__(self, client: httpx.AsyncClient, options: BenchOptions, model: str) -> None:
        self.client = client
        self.options = options
        self.model = model

    async def ask(self, question: Question) -> Sample:
        """One streamed completion, timed; any failure becomes the sample's error."""
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self.options.timeout_s):
                return await self._stream(question, start)
        except TimeoutError:
            error = f"no complete answer in {self.options.timeout_s:g} s"
        except (httpx.HTTPError, BenchError, ValueError, TypeError, AttributeError) as fault:
            error = describe(fault)
        return Sample(question, e2e_s=time.perf_counter() - start, error=error)

    async def _stream(self, question: Question, start: float) -> Sample:
        texts, times, tokens = [], [], 0
        server: dict[str, Any] = {}
        token_ids: list[int] = []
        async with aclosing(self._events(self.body(question))) as events:
            async for event in events:
                for choice in event.get("choices", ()):
                    if piece := (choice.get("delta") or {}).get("content"):
                        texts.append(piece)
                        times.append(time.perf_counter() - start)
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
                server = event.get(EXTENSION) or server
                token_ids += (event.get(EXTENSION) or {}).get("token_ids", ())
        if not tokens:
            raise BenchError("the answer has no tokens, or no usage to count them by")
        e2e_s = time.perf_counter() - start
        return Sample(
            question,
            "".join(texts),
            tokens,
            e2e_s,
            tuple(times),
            server,
            token_ids=tuple(token_ids),
        )

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The server-sent events up to the end mark. Raises BenchError where it is missing.

        Reads on to the response's end: a connection closed before that cannot be used again.
        """
        done = False
        async with self.client.stream("POST", "chat/completions", json=body) as answer:
            if answer.is_error:
                text = (await answer.aread()).decode(errors="replace")
                raise BenchError(f"HTTP {answer.status_code}: {_refusal(text)}")
            async for line in answer.aiter_lines():
                data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                done = done or data == DONE
                if data and not done:
                    event = json.loads(data)
                    if "error" in event:
                        raise BenchError(f"error in the stream: {_message(event['error'])}")
                    yield event
        if not done:
            raise BenchError(f"the stream ended without {DONE}")

    def body(self, question: Question) -> dict[str, Any]:
        """The request's JSON."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": question.prompt.text}],
            "max_tokens": self.options.max_tokens,
            "temperature": self.options.temperature,
            "seed": self.options.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.options.ignore_eos:
            body["ignore_eos"] = True
        if question.mode != DEFAULT:
            plan = {"mode": question.mode, "gamma": question.gamma, "block": question.block}
            given = {name: value for name, value in plan.items() if value is not None}
            body[EXTENSION] = given | dict(self.options.extensions.get(question.mode, {}))
        return body


def describe(error: BaseException) -> str:
    """One line; some of httpx's errors have no text of their own."""
    return " ".join(str(error).split()) or type(error).__name__


def _refusal(text: str) -> str:
    """What an error's body says, whether it is OpenAI's JSON or not."""
    try:
        return _message(json.loads(text)["error"])
    except (ValueError, TypeError, KeyError):
        return _line(text)


def _message(error: Any) -> str:
    """OpenAI's error objects have it as `message`."""
    told = error.get("message") if isinstance(error, dict) else None
    return _line(str(told) if told else json.dumps(error))


def _line(text: str) -> str:
    return " ".join(text.split())[:_ERROR_CHARS]
