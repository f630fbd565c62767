"""Laws of `response_format`: what becomes of a schema, and which schemas are refused."""

from __future__ import annotations

import asyncio
import json

import pytest

from actors.ingress import structured
from actors.ingress.errors import ApiError
from actors.ingress.structured import SchemaGate
from tests.ingress.conftest import chat_body, completion_body

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PARAM = "response_format.json_schema.schema"
# Keys in an order of their own: the answer has it.
PERSON = {
    "type": "object",
    "required": ["zeta", "alpha"],
    "properties": {"zeta": {"type": "string"}, "alpha": {"enum": ["é", 1, None]}},
}
# The engine's own limits do not bound the intersection of many patterns.
ENDLESS = {"allOf": [{"type": "string", "pattern": f"(.*a{i}.*){{5}}"} for i in range(40)]}


def asked(schema=None, **more):
    if schema is None:
        return {"response_format": {"type": "json_object"}}
    named = {"name": "answer", "schema": schema, **more}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


async def post(client, path=CHAT, **fields):
    body = chat_body(**fields) if path == CHAT else completion_body(**fields)
    return await client.post(path, json=body)


def grammars_of(backend):
    return [s.sampling.params.grammar for r in backend.requests for s in r.sessions]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_schema_reaches_every_session_in_one_canonical_text(client, backend, path):
    for more in ({}, {"strict": True}, {"strict": False, "description": "A person."}):
        response = await post(client, path, n=2, **asked(PERSON, **more))
        assert response.status_code == 200, response.text
    texts = grammars_of(backend)
    assert len(texts) == 6
    assert len(set(texts)) == 1
    assert json.loads(texts[0]) == PERSON
    assert list(json.loads(texts[0])["properties"]) == ["zeta", "alpha"]


async def test_json_object_is_any_object(client, backend):
    assert (await post(client, **asked())).status_code == 200
    assert [json.loads(text) for text in grammars_of(backend)] == [{"type": "object"}]


@pytest.mark.parametrize("value", [None, {"type": "text"}, {"type": "text", "json_schema": None}])
async def test_text_asks_for_no_grammar(client, backend, value):
    assert (await post(client, response_format=value)).status_code == 200
    assert grammars_of(backend) == [""]


def refused(response, *words):
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == PARAM
    assert all(word in error["message"] for word in (PARAM, *words)), error
    assert "\n" not in error["message"]
    return error


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": {"type": "null"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "whatever"}, "whatever"),
        ({"$ref": "http://example.com/schema.json"}, "example.com"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "minimum"),
        ({"$ref": "#"}, "no answer"),
        ({"type": "integer", "maximum": 10**4000}, "number"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_what_is_unsupported_is_named(client, backend, path, schema, named):
    error = refused(await post(client, path, **asked(schema)), named)
    assert error["code"] == "invalid_json_schema"
    assert backend.requests == []


async def test_a_stream_is_refused_with_a_status_too(client):
    refused(await post(client, stream=True, **asked({"not": {}})), "not")


async def test_too_large_or_too_deep_a_schema_is_refused(client, backend, settings):
    large = {"enum": ["x" * settings.max_schema_chars]}
    refused(await post(client, **asked(large)), str(settings.max_schema_chars))
    deep = json.loads('{"items":' * settings.max_schema_depth + "{}" + "}" * 64)
    refused(await post(client, **asked(deep)), str(settings.max_schema_depth))
    assert backend.requests == []
    fits = json.loads('{"items":' * 60 + "{}" + "}" * 60)
    assert (await post(client, **asked(fits))).status_code == 200


async def test_a_schema_that_compiles_forever_is_refused_and_others_are_not(client, schemas):
    held = asyncio.create_task(post(client, **asked(ENDLESS)))
    plain = await post(client)
    assert plain.status_code == 200
    refused(await held, "compile")
    assert (await post(client, **asked({"const": "after"}))).status_code == 200
    refused(await post(client, **asked({"not": {"const": "after"}})), "not")


async def test_a_schema_is_compiled_once(codec, monkeypatch):
    gate = SchemaGate(codec)
    sent: list[object] = []
    exchange = structured._exchange
    monkeypatch.setattr(
        structured,
        "_exchange",
        lambda probe, value: (sent.append(value), exchange(probe, value))[1],
    )
    good, bad = '{"type":"null"}', '{"not":{}}'
    for _ in range(3):
        await gate.check(good)
        with pytest.raises(ApiError):
            await gate.check(bad)
    assert sent[1:] == [good, bad]
    gate.close()


async def test_a_probe_that_died_is_replaced(codec):
    gate = SchemaGate(codec)
    await gate.check('{"const":1}')
    assert gate._probe is not None
    gate._probe.kill()
    gate._probe.wait()
    await gate.check('{"const":2}')
    gate.close()


async def test_a_tokenizer_that_cannot_follow_a_schema_is_told():
    class Unknown:
        def serialised(self):
            return '{"model": {"type": "Unknown"}}', None

    gate = SchemaGate(Unknown())
    with pytest.raises(ApiError, match="tokenizer"):
        await gate.check('{"const":1}')
    gate.close()
