"""Laws of logprobs: an entry for each token shown, whole and streamed alike, in OpenAI's shape."""

from __future__ import annotations

from itertools import chain

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.ingress.conftest import chat_body, completion_body, events_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TEXT = "hello world! 🦊 é"


async def chat(client, **fields):
    response = await client.post(CHAT, json=chat_body(**fields))
    assert response.status_code == 200, response.text
    return response


def content_of(events) -> list:
    parts = [c["logprobs"] for e in events if e != "[DONE]" for c in e["choices"]]
    return list(chain.from_iterable(part["content"] for part in parts if part))


async def test_every_shown_token_has_its_entry_and_the_bytes_add_up(client):
    body = (await chat(client, logprobs=True, top_logprobs=2)).json()
    answer = ChatCompletion.model_validate(body).choices[0]
    assert answer.logprobs is not None
    entries = answer.logprobs.content or []
    assert bytes(chain.from_iterable(e.bytes or [] for e in entries)).decode() == TEXT
    assert all(len(e.top_logprobs) == 2 for e in entries)
    assert all(e.top_logprobs[0].token == e.token for e in entries)
    assert body["usage"]["completion_tokens"] == len(entries) + 1, "the end token is not shown"


@pytest.mark.parametrize("stop", [None, "wor", "🦊"])
async def test_a_stream_tells_what_the_whole_answer_tells(client, stop):
    fields = {"logprobs": True, "top_logprobs": 1, "seed": 1, "stop": stop}
    whole = (await chat(client, **fields)).json()["choices"][0]["logprobs"]["content"]
    events = events_of((await chat(client, stream=True, **fields)).text)
    for event in events[:-1]:
        ChatCompletionChunk.model_validate(event)
    assert content_of(events) == whole


async def test_nothing_is_told_unasked(client, backend):
    body = (await chat(client, logprobs=False)).json()
    assert body["choices"][0]["logprobs"] is None
    assert backend.requests[0].sessions[0].num_logprobs is None


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_have_the_older_shape(client, stream):
    fields = {"logprobs": 2, "max_tokens": 40, "stream": stream}
    response = await client.post(COMPLETIONS, json=completion_body(**fields))
    assert response.status_code == 200, response.text
    answers = events_of(response.text)[:-1] if stream else [response.json()]
    choices = [answer["choices"][0] for answer in answers]
    if not stream:
        Completion.model_validate(answers[0])
    told = [choice["logprobs"] for choice in choices]
    tokens = list(chain.from_iterable(t["tokens"] for t in told))
    offsets = list(chain.from_iterable(t["text_offset"] for t in told))
    text = "".join(choice["text"] for choice in choices)
    assert text == TEXT
    assert offsets == sorted(offsets)
    whole = [
        (token, at) for token, at in zip(tokens, offsets, strict=True) if "\ufffd" not in token
    ]
    assert whole
    assert all(text[at : at + len(token)] == token for token, at in whole)
    tops = list(chain.from_iterable(t["top_logprobs"] or [] for t in told))
    assert all(tokens[i] in top and 1 <= len(top) <= 2 for i, top in enumerate(tops))


async def test_completions_may_ask_for_the_chosen_ones_alone(client):
    response = await client.post(COMPLETIONS, json=completion_body(logprobs=0, max_tokens=4))
    told = response.json()["choices"][0]["logprobs"]
    assert told["top_logprobs"] is None
    assert told["token_logprobs"] == [-0.25] * 4
