"""What of a request reaches the backend."""

from __future__ import annotations

import dataclasses

import httpx
import pytest

from actors.ingress.app import create_app
from actors.ingress.neutral import NEUTRAL
from policies.vocabulary import Plan, PlanKind, SamplingParams
from tests.ingress.conftest import chat_body, completion_body

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture
def sessions(client, backend):
    """Post a request; the sessions that the backend was given."""

    async def post(body):
        path = CHAT if "messages" in body else COMPLETIONS
        response = await client.post(path, json=body)
        assert response.status_code == 200, response.text
        return backend.requests[-1].sessions

    return post


async def test_parameters_reach_the_session(sessions, eos):
    [session] = await sessions(
        completion_body(
            temperature=0.5,
            top_p=0.9,
            top_k=7,
            min_p=0.1,
            repetition_penalty=1.1,
            presence_penalty=0.2,
            frequency_penalty=-0.3,
            logit_bias={"5": -100, "3": 2.5},
            seed=-(2**63),
            max_tokens=9,
            stop_token_ids=[4],
        )
    )
    assert session.sampling.params == SamplingParams(
        0.5, 7, 0.9, 0.1, 1.1, 0.2, -0.3, ((3, 2.5), (5, -100.0))
    )
    assert (session.sampling.seed, session.sampling.choice) == (-(2**63), 0)
    assert session.max_tokens == 9
    assert session.stop_ids == {4, eos}


async def test_omitted_values_are_the_models_and_the_bound_is_openais(sessions, settings, codec):
    [session] = await sessions(completion_body(prompt="hello", temperature=None, top_k=None))
    assert session.sampling.params == settings.sampling
    assert session.tokens == tuple(codec.encode("hello"))
    assert session.sampling.prompt_len == len(session.tokens)
    assert session.max_tokens == 16


async def test_an_omitted_bound_is_the_default_where_there_is_room(settings, codec, backend):
    app = create_app(dataclasses.replace(settings, default_max_tokens=5), codec, backend)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://ingress"
    ) as http:
        for prompt_len, expected in [(10, 5), (126, 2)]:
            body = completion_body(prompt=[1] * prompt_len)
            assert (await http.post(COMPLETIONS, json=body)).status_code == 200
            assert backend.requests[-1].sessions[0].max_tokens == expected


@pytest.mark.parametrize("temperature", [0, 1e-300, 1e-6])
async def test_a_temperature_next_to_nothing_is_greedy(sessions, temperature):
    [session] = await sessions(completion_body(temperature=temperature))
    assert session.sampling.params.temperature == 0.0


@pytest.mark.parametrize(("top_k", "expected"), [(-1, 0), (0, 0), (1, 1), (10**40, 331)])
async def test_top_k_is_bounded_by_the_vocabulary(sessions, top_k, expected):
    [session] = await sessions(completion_body(top_k=top_k))
    assert session.sampling.params.top_k == expected


@pytest.mark.parametrize(
    ("extension", "expected"),
    [
        (None, Plan(PlanKind.THREE_TIER, 4, 8)),
        ({}, Plan(PlanKind.THREE_TIER, 4, 8)),
        ({"mode": "auto", "gamma": 2}, Plan(PlanKind.THREE_TIER, 2, 8)),
        ({"mode": "off"}, Plan(PlanKind.OFF, 4, 8)),
        ({"mode": "two_tier", "gamma": 16}, Plan(PlanKind.TWO_TIER, 16, 8)),
        ({"mode": "three_tier", "gamma": 1, "block": 32}, Plan(PlanKind.THREE_TIER, 1, 32)),
    ],
)
async def test_the_extension_sets_the_plan(sessions, extension, expected):
    [session] = await sessions(chat_body(viaserve=extension))
    assert session.plan == expected


async def test_ignoring_eos_leaves_only_the_stop_ids_asked_for(sessions):
    [session] = await sessions(completion_body(ignore_eos=True, stop_token_ids=[7]))
    assert session.stop_ids == {7}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("hi", ["hi"]), (["hi", "ho"], ["hi", "ho"]), ([5, 6], [(5, 6)]), ([[5], [6]], [(5,), (6,)])],
)
async def test_every_form_of_prompt_is_read(sessions, codec, prompt, expected):
    given = await sessions(completion_body(prompt=prompt))
    wanted = [tuple(codec.encode(item)) if isinstance(item, str) else item for item in expected]
    assert [session.tokens for session in given] == wanted


async def test_choice_k_of_any_prompt_has_noise_key_seed_and_k(sessions):
    given = await sessions(completion_body(prompt=["a", "b"], n=2, seed=5))
    assert [(s.sampling.seed, s.sampling.choice) for s in given] == [(5, 0), (5, 1)] * 2


async def test_without_a_seed_each_prompt_gets_a_fresh_one(sessions):
    first = await sessions(completion_body(prompt=["a", "a"], n=2))
    second = await sessions(completion_body(prompt=["a", "a"], n=2))
    seeds = [session.sampling.seed for session in (*first, *second)]
    assert seeds[0::2] == seeds[1::2]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


async def test_a_repeated_request_id_never_shares_a_session_id(client, backend):
    for _ in range(2):
        await client.post(COMPLETIONS, json=completion_body(n=2), headers={"x-request-id": "same"})
    ids = [session.session_id for request in backend.requests for session in request.sessions]
    assert len(set(ids)) == 4
    assert len({request.request_id for request in backend.requests}) == 2


async def test_roles_and_text_parts_are_rendered(sessions, codec):
    conversation = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": None, "tool_calls": None},
        {"role": "user", "content": "", "name": "bob"},
    ]
    [session] = await sessions(chat_body(messages=conversation))
    rendered = [("system", "be brief"), ("user", "a\nb"), ("assistant", "c"), ("user", "")]
    assert session.tokens == tuple(
        codec.chat([{"role": role, "content": content} for role, content in rendered])
    )


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_both_names_of_the_bound_are_known_to_chat(sessions, name):
    [session] = await sessions(chat_body(**{name: 3}))
    assert session.max_tokens == 3


@pytest.mark.parametrize("body", [chat_body, completion_body])
async def test_parameters_that_ask_for_nothing_are_accepted(sessions, body):
    for position in range(max(map(len, NEUTRAL.values()))):
        asks = {name: values[min(position, len(values) - 1)] for name, values in NEUTRAL.items()}
        await sessions(body(user="u", metadata={"a": "b"}, parallel_tool_calls=True, **asks))


async def test_a_body_is_json_whatever_its_content_type(client):
    content = b'{"model": "tiny", "prompt": "hi"}'
    for content_type in ("text/plain", "multipart/form-data", "application/json; charset=latin-1"):
        headers = {"content-type": content_type}
        response = await client.post(COMPLETIONS, content=content, headers=headers)
        assert response.status_code == 200


async def test_a_long_body_is_read_like_a_short_one(sessions, codec):
    [session] = await sessions(completion_body(prompt="hi", metadata={"pad": "x" * 100_000}))
    assert session.tokens == tuple(codec.encode("hi"))
