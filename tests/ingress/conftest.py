"""A tiny byte-level tokenizer with a chat template, and clients of an app on fakes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psutil
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from actors.ingress import schema_probe
from actors.ingress.app import create_app
from actors.ingress.settings import IngressSettings
from actors.ingress.structured import SchemaGate
from actors.ingress.text import TextCodec
from policies.vocabulary import Plan, PlanKind
from tests.ingress.fakes import FakeBackend

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = ["the quick brown fox jumps over the lazy dog. hello world! stop stopping here"] * 3


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("tool→call")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def codec() -> TextCodec:
    return TextCodec(byte_level_tokenizer())


@pytest.fixture(scope="session")
def eos(codec) -> int:
    [token] = codec.encode("<|im_end|>")
    return token


@pytest.fixture
def settings(eos) -> IngressSettings:
    return IngressSettings(
        model_name="org/tiny",
        aliases=("tiny",),
        max_context=128,
        vocab_size=331,
        eos_ids=frozenset({eos}),
        plan=Plan(PlanKind.THREE_TIER, gamma=4, block=8),
        max_body_bytes=1 << 20,
    )


@pytest.fixture
def backend(codec, eos) -> FakeBackend:
    """Answers "hello world! 🦊 é"."""
    return FakeBackend(lambda spec: [*codec.encode("hello world! 🦊 é"), eos])


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}


@pytest.fixture(scope="session")
def schemas(codec) -> Iterator[SchemaGate]:
    """One for all tests; its probe is started when a schema first comes, and must end."""
    before = _probes()
    gate = SchemaGate(codec)
    yield gate
    gate.close()
    assert _probes() <= before


def _probes() -> set[psutil.Process]:
    """Only these: other tests of the session may leave helpers of multiprocessing for its end."""
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if schema_probe.__name__ in child.cmdline():
                found.add(child)
    return found


@pytest.fixture
def app(settings, codec, backend, schemas):
    return create_app(settings, codec, backend, schemas)


@pytest.fixture
async def client(app, no_leaks) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingress") as http:
        yield http


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}], **fields}


def completion_body(**fields: Any) -> dict[str, Any]:
    return {"model": "org/tiny", "prompt": "hi", **fields}


def events_of(text: str) -> list[Any]:
    """The events of a stream as JSON, "[DONE]" as it stands."""
    frames = text.split("\n\n")
    assert frames.pop() == ""
    assert all(frame.startswith("data: ") for frame in frames)
    return [
        frame if frame == "[DONE]" else json.loads(frame)
        for frame in (frame.removeprefix("data: ") for frame in frames)
    ]


def joined_text(events: list[Any], index: int = 0) -> str:
    """The text that a stream gave one choice."""
    parts = [part for event in events if event != "[DONE]" for part in event["choices"]]
    return "".join(
        part.get("text", "") + (part.get("delta", {}).get("content") or "")
        for part in parts
        if part["index"] == index
    )
