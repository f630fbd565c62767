"""OpenAI's own client, over a real socket."""

from __future__ import annotations

import asyncio
import socket

import openai
import pytest
import uvicorn

from actors.ingress.errors import Overloaded, Unavailable
from tests.ingress.conftest import chat_body, completion_body

TEXT = "hello world! 🦊 é"


class Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, app):
        super().__init__(uvicorn.Config(app, log_level="warning", lifespan="off"))
        self.listening = asyncio.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.listening.set()

    def install_signal_handlers(self):
        pass


@pytest.fixture
async def api(app, no_leaks):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(app)
        serving = asyncio.create_task(server.serve([listener]))
        await server.listening.wait()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        async with openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=0) as client:
            yield client
        server.should_exit = True
        await serving


async def test_chat_answers(api):
    answer = await api.chat.completions.create(**chat_body(seed=3))
    assert answer.choices[0].message.content == TEXT
    assert answer.viaserve["seed"] == 3


async def test_an_answer_can_be_sent_back_as_a_message(api):
    answer = await api.chat.completions.create(**chat_body())
    body = chat_body()
    body["messages"] += [answer.choices[0].message, {"role": "user", "content": "more"}]
    assert (await api.chat.completions.create(**body)).choices[0].message.content == TEXT


async def test_chat_streams(api):
    stream = await api.chat.completions.create(
        **chat_body(n=2), stream=True, stream_options={"include_usage": True}
    )
    texts, usages = ["", ""], []
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
        if chunk.usage is not None:
            usages.append(chunk.usage)
    assert texts == [TEXT, TEXT]
    assert len(usages) == 1


async def test_completions_answer_and_stream(api):
    answer = await api.completions.create(**completion_body(prompt=["a", "b"]))
    assert [choice.text for choice in answer.choices] == [TEXT, TEXT]
    stream = await api.completions.create(**completion_body(), stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == TEXT


async def test_models_are_listed(api):
    assert [model.id async for model in api.models.list()] == ["org/tiny", "tiny"]
    assert (await api.models.retrieve("tiny")).id == "tiny"


async def test_errors_are_the_clients_own_exceptions(api, backend):
    with pytest.raises(openai.BadRequestError, match="temperature"):
        await api.chat.completions.create(**chat_body(temperature=3))
    with pytest.raises(openai.NotFoundError):
        await api.chat.completions.create(**chat_body() | {"model": "x"})
    backend.refusal = Overloaded(1)
    with pytest.raises(openai.RateLimitError):
        await api.chat.completions.create(**chat_body(), stream=True)


async def test_a_failure_in_a_stream_raises_in_the_client(api, backend):
    backend.failure, backend.fail_after = Unavailable("full worker lost"), 2
    stream = await api.chat.completions.create(**chat_body(), stream=True)
    with pytest.raises(openai.APIError, match="full worker lost"):
        async for _ in stream:
            pass


async def test_closing_a_stream_cancels_the_request(api, backend):
    cancelled = asyncio.Event()
    whole = backend.generate

    async def generate(request):
        try:
            async for item in whole(request):
                yield item
        finally:
            cancelled.set()

    backend.generate = generate
    backend.hang_after = 3
    stream = await api.chat.completions.create(**chat_body(), stream=True)
    await backend.silent.wait()
    await stream.close()
    await asyncio.wait_for(cancelled.wait(), 10)
