"""Every bad request is refused at admission, in OpenAI's shape, and names the parameter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ingress.text import TextCodec
from tests.ingress.conftest import byte_level_tokenizer, chat_body, completion_body

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def assert_error(response, status, param, *, code=None):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param, error
    assert error["message"]
    assert "\n" not in error["message"]
    if code is not None:
        assert error["code"] == code


def messages(**fields):
    return {"messages": [{"role": "user", "content": "hi", **fields}]}


NAMED = {"name": "answer", "schema": {"type": "object"}}


def json_schema(**fields):
    return {"response_format": {"type": "json_schema", "json_schema": NAMED | fields}}


BAD_FIELDS = [
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.0}, "top_k"),
    ({"min_p": 1.5}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"presence_penalty": 2.5}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"n": 10**30}, "n"),
    ({"seed": 2**63}, "seed"),
    ({"seed": -(2**63) - 1}, "seed"),
    ({"seed": True}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a", ""]}, "stop"),
    ({"stop": 5}, "stop"),
    ({"stop": ["a", 5]}, "stop"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"stop": "a" * 257}, "stop"),
    ({"stop_token_ids": [331]}, "stop_token_ids"),
    ({"stop_token_ids": ["1"]}, "stop_token_ids.0"),
    ({"stop_token_ids": [1] * 65}, "stop_token_ids"),
    ({"logit_bias": {"331": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": {"1": True}}, "logit_bias"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"ignore_eos": 1}, "ignore_eos"),
    ({"stream": "true"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
    ({"viaserve": {"mode": "fast"}}, "viaserve.mode"),
    ({"viaserve": {"mode": None}}, "viaserve.mode"),
    ({"viaserve": {"gamma": 0}}, "viaserve.gamma"),
    ({"viaserve": {"gamma": 17}}, "viaserve.gamma"),
    ({"viaserve": {"block": 33}}, "viaserve.block"),
    ({"viaserve": {"block": True}}, "viaserve.block"),
    ({"viaserve": {"lossy": True}}, "viaserve.lossy"),
    ({"viaserve": "off"}, "viaserve"),
    ({"logit_bias": {"5": 1, "05": 2}}, "logit_bias"),
    ({"logprobs": "yes"}, "logprobs"),
    ({"logprobs": 21}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"response_format": "json_object"}, "response_format"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "grammar"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"response_format": {"type": "text", "json_schema": NAMED}}, "response_format"),
    (json_schema(name=None), "response_format.json_schema.name"),
    (json_schema(name="a b"), "response_format.json_schema.name"),
    (json_schema(schema=None), "response_format.json_schema.schema"),
    (json_schema(schema=True), "response_format.json_schema.schema"),
    (json_schema(strict="yes"), "response_format.json_schema.strict"),
    (json_schema(schemas={}), "response_format.json_schema.schemas"),
    ({"best_of": 2}, "best_of"),
    ({"echo": True}, "echo"),
    ({"suffix": "x"}, "suffix"),
    ({"store": True}, "store"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"temprature": 1}, "temprature"),
    ({"model": None}, "model"),
]

BAD_CHAT = [
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": ["hi"]}, "messages.0"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    (messages(role="tool"), "messages.0.role"),
    (messages(role="root"), "messages.0.role"),
    (messages(content=None), "messages.0.content"),
    (messages(content=[]), "messages.0.content"),
    (messages(content=[{"type": "image_url", "image_url": {"url": "x"}}]), "messages.0.content"),
    (messages(content=[{"type": "text", "text": 5}]), "messages.0.content"),
    (messages(content=["hi"]), "messages.0.content"),
    (messages(tool_calls=[{}]), "messages.0.tool_calls"),
    (messages(colour="red"), "messages.0.colour"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"prompt": "hi"}, "prompt"),
]

BAD_COMPLETIONS = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": ["hi", 5]}, "prompt"),
    ({"prompt": [5, "hi"]}, "prompt"),
    ({"prompt": [True]}, "prompt"),
    ({"prompt": [1.0]}, "prompt"),
    ({"prompt": [331]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [[1], [10**30]]}, "prompt"),
    ({"prompt": [[[1]]]}, "prompt"),
    ({"prompt": ["hi"] * 9, "n": 2}, "prompt"),
    ({"max_completion_tokens": 5}, "max_completion_tokens"),
    ({"messages": []}, "messages"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS + BAD_CHAT)
async def test_a_bad_chat_request_is_refused(client, backend, fields, param):
    response = await client.post(CHAT, json=chat_body(**fields))
    assert_error(response, 400, param)
    assert backend.requests == []


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS + BAD_COMPLETIONS)
async def test_a_bad_completion_request_is_refused(client, backend, fields, param):
    response = await client.post(COMPLETIONS, json=completion_body(**fields))
    assert_error(response, 400, param)
    assert backend.requests == []


MALFORMED = {
    "empty": b"",
    "garbage": b"\x00\xfe" * 500_000,
    "letters": b"x" * 1_000_000,
    "truncated": b'{"model": "org/tiny", "prompt": "hi',
    "trailing": b'{"model": "org/tiny", "prompt": "hi"} {}',
    "invalid UTF-8": b'{"model": "org/tiny", "prompt": "\xff\xfe"}',
    "array": b"[1, 2]",
    "string": b'"hi"',
    "null": b"null",
    "nested arrays": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "nested in a field": b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NaN": b'{"model": "org/tiny", "prompt": "hi", "temperature": NaN}',
    "Infinity": b'{"model": "org/tiny", "prompt": "hi", "temperature": Infinity}',
    "lone surrogate": b'{"model": "org/tiny", "prompt": "\\ud800"}',
    "lone surrogate key": b'{"model": "org/tiny", "prompt": "hi", "\\udfff": 1}',
    "endless number": b'{"model": "org/tiny", "prompt": "hi", "seed": ' + b"9" * 9999 + b"}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_body_that_is_no_json_object_is_refused(client, backend, path, body):
    response = await client.post(path, content=body)
    assert_error(response, 400, None, code="invalid_json")
    assert backend.requests == []


async def test_an_overflowing_number_is_refused(client):
    body = b'{"model": "org/tiny", "prompt": "hi", "temperature": 1e999}'
    assert_error(await client.post(COMPLETIONS, content=body), 400, "temperature")


async def test_a_refused_mode_is_told_the_modes_that_there_are(client):
    response = await client.post(CHAT, json=chat_body(viaserve={"mode": "fast"}))
    message = response.json()["error"]["message"]
    assert all(mode in message for mode in ("auto", "off", "two_tier", "three_tier"))


@pytest.mark.parametrize("missing", ["model", "messages"])
async def test_a_missing_field_is_named(client, missing):
    body = chat_body()
    del body[missing]
    response = await client.post(CHAT, json=body)
    assert_error(response, 400, missing, code="missing_required_parameter")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_an_unknown_model_is_404(client, path):
    body = chat_body() if path == CHAT else completion_body()
    response = await client.post(path, json={**body, "model": "gpt-x" * 100})
    assert_error(response, 404, "model", code="model_not_found")
    assert "org/tiny" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("num_prompt", "max_tokens", "status"),
    [(127, None, 200), (128, None, 400), (129, None, 400), (28, 100, 200), (28, 101, 400)],
)
async def test_prompt_and_answer_fit_the_context_or_the_numbers_are_told(
    client, num_prompt, max_tokens, status
):
    body = completion_body(prompt=[1] * num_prompt, max_tokens=max_tokens)
    response = await client.post(COMPLETIONS, json=body)
    assert response.status_code == status
    if status == 400:
        assert_error(response, 400, "prompt", code="context_length_exceeded")
        message = response.json()["error"]["message"]
        assert "128" in message
        assert str(num_prompt) in message
        assert str(max_tokens or "one") in message


@pytest.mark.parametrize("word", ["fox ", "🦊"])
async def test_a_long_text_is_refused_before_it_is_encoded(client, monkeypatch, word):
    """Encoding megabytes takes seconds and holds up every other request."""
    monkeypatch.setattr(TextCodec, "encode", None)
    response = await client.post(CHAT, json=chat_body(**messages(content=word * 50_000)))
    assert_error(response, 400, "messages", code="context_length_exceeded")
    response = await client.post(COMPLETIONS, json=completion_body(prompt=word * 50_000))
    assert_error(response, 400, "prompt", code="context_length_exceeded")


CODEC = TextCodec(byte_level_tokenizer())


@given(text=st.text(max_size=60))
def test_no_text_has_fewer_tokens_than_the_bound_says(text):
    assert CODEC.least_tokens(len(text)) <= len(CODEC.encode(text))


@pytest.mark.parametrize("declares_length", [True, False])
async def test_too_long_a_body_is_413(client, backend, declares_length):
    body = json.dumps(completion_body(prompt="x" * (1 << 20))).encode()

    async def parts():
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    content = body if declares_length else parts()
    response = await client.post(COMPLETIONS, content=content)
    assert_error(response, 413, None, code="request_too_large")
    assert backend.requests == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/index", 404),
        ("POST", "/", 405),
        ("GET", "/v2/chat", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", CHAT + "/", 404),
    ],
)
async def test_an_unknown_route_has_openais_error_shape(client, method, path, status):
    assert_error(await client.request(method, path), status, None)
