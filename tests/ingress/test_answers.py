"""Laws of the answers: text, usage, finish reasons, and the extension."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from actors.ingress.stops import StopMatcher
from actors.ingress.stream import Choice
from actors.ingress.text import TextCodec
from policies.vocabulary import PlanKind, SamplingParams, SamplingSpec, SessionSpec
from tests.ingress.conftest import (
    byte_level_tokenizer,
    chat_body,
    completion_body,
    events_of,
    joined_text,
)
from tests.ingress.fakes import commits_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TEXT = "hello world! 🦊 é"
CODEC = TextCodec(byte_level_tokenizer())
[EOS] = CODEC.encode("<|im_end|>")


async def ask(client, path, **fields):
    body = chat_body(**fields) if path == CHAT else completion_body(**fields)
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response


def shown(choice) -> str:
    return choice["text"] if "text" in choice else choice["message"]["content"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stop": "wor"},
        {"stop": ["🦊", "zzz"]},
        {"stop": " é!"},
        {"max_tokens": 1},
        {"max_tokens": 9},
        {"ignore_eos": True},
        {"n": 3, "stop": "!"},
    ],
)
async def test_a_stream_gives_what_the_whole_answer_gives(client, path, fields):
    whole = (await ask(client, path, seed=1, **fields)).json()
    asks = {"stream": True, "stream_options": {"include_usage": True}}
    streamed = await ask(client, path, seed=1, **asks, **fields)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = events_of(streamed.text)
    assert events.pop() == "[DONE]"
    last = events.pop()
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert all(event["usage"] is None for event in events)
    finishes = [(event["choices"][0], event["viaserve"]) for event in events if "viaserve" in event]
    assert len(finishes) == len(whole["choices"])
    for part, extension in finishes:
        choice = whole["choices"][part["index"]]
        assert part["finish_reason"] == choice["finish_reason"]
        assert extension == choice["viaserve"]
        assert joined_text(events, part["index"]) == shown(choice)


@given(
    st.sampled_from([TEXT, "a🦊b stop é", "aabaabaaab", "stop", "日本語 stop"]),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.sampled_from([(), ("stop",), ("aab", "aaab"), ("🦊",), ("本語 s", "zz"), ("hello world!",)]),
    st.integers(1, 30),
)
def test_text_and_usage_do_not_depend_on_the_commits(text, sizes, stops, max_tokens):
    answer = [*CODEC.encode(text), EOS]
    sampling = SamplingSpec(SamplingParams(), seed=0, choice=0, prompt_len=1)
    spec = SessionSpec("s", (1,), sampling, max_tokens, stop_ids=frozenset({EOS}))

    def outcome(commit_sizes):
        choice = Choice(0, spec, CODEC.stream_decoder(), StopMatcher(stops))
        streamed = ""
        for commit in commits_of(spec, answer, itertools.cycle(commit_sizes)):
            if choice.finish is None:
                streamed += choice.take(commit).text
        assert streamed == choice.text
        return choice.text, choice.num_tokens, choice.finish, choice.tiers

    assert outcome(sizes) == outcome([1])
    text, num_tokens, finish, _ = outcome(sizes)
    assert not any(stop in text for stop in stops)
    if not stops:
        assert text == CODEC.decode(answer[:num_tokens])
        assert finish == ("stop" if max_tokens >= len(answer) else "length")


async def test_an_answer_that_ends_itself_counts_its_stop_token_and_hides_it(client, codec):
    answer = (await ask(client, COMPLETIONS)).json()
    assert shown(answer["choices"][0]) == TEXT
    assert answer["choices"][0]["finish_reason"] == "stop"
    num_tokens = len(codec.encode(TEXT)) + 1
    num_prompt = len(codec.encode("hi"))
    assert answer["usage"] == {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_tokens,
        "total_tokens": num_prompt + num_tokens,
    }


async def test_a_stop_string_ends_the_answer_before_it_and_cancels_the_rest(client, backend, codec):
    answer = (await ask(client, COMPLETIONS, stop="wor")).json()
    assert shown(answer["choices"][0]) == "hello "
    assert answer["choices"][0]["finish_reason"] == "stop"
    decoded = [codec.decode(codec.encode(TEXT)[:count]) for count in range(20)]
    first = next(count for count, text in enumerate(decoded) if "wor" in text)
    assert answer["usage"]["completion_tokens"] == first
    assert (backend.num_completed, backend.num_cancelled) == (0, 1)


async def test_an_answer_that_ends_itself_is_not_cancelled(client, backend):
    await ask(client, CHAT, n=2)
    await ask(client, CHAT, n=2, stream=True)
    assert (backend.num_completed, backend.num_cancelled) == (2, 0)


async def test_a_stopped_choice_leaves_the_others_running(client, backend, codec, eos):
    backend.answer = lambda spec: [*codec.encode(["stop it", "hello"][spec.sampling.choice]), eos]
    answer = (await ask(client, COMPLETIONS, n=2, stop="stop")).json()
    assert [shown(choice) for choice in answer["choices"]] == ["", "hello"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_wire_objects_are_openais(client, path):
    whole = await ask(client, path, n=2, viaserve={"provenance": True})
    asks = {"stream": True, "stream_options": {"include_usage": True}}
    events = events_of((await ask(client, path, n=2, **asks)).text)[:-1]
    prefix = "chatcmpl-" if path == CHAT else "cmpl-"
    request_id = whole.headers["x-request-id"]
    assert whole.json()["id"] == prefix + request_id
    if path == CHAT:
        ChatCompletion.model_validate(whole.json(), strict=True)
        parsed = [ChatCompletionChunk.model_validate(event, strict=True) for event in events]
        roles = [event.choices[0].delta.role for event in parsed if event.choices]
        assert roles.count("assistant") == 2
        assert (parsed[0].choices[0].delta.role, parsed[0].choices[0].delta.content) == (
            "assistant",
            "",
        )
    else:
        Completion.model_validate(whole.json(), strict=True)
        for event in events:
            # openai's type is wrong here: a chunk that does not finish has a null reason.
            parts = [{**p, "finish_reason": p["finish_reason"] or "stop"} for p in event["choices"]]
            Completion.model_validate({**event, "choices": parts}, strict=True)
    assert len({event["id"] for event in events}) == 1
    assert len({event["created"] for event in events}) == 1
    assert {event["model"] for event in events} == {"org/tiny"}


async def test_usage_is_absent_from_a_stream_that_did_not_ask_for_it(client):
    events = events_of((await ask(client, CHAT, stream=True)).text)
    assert all("usage" not in event for event in events[:-1])


async def test_a_commit_leads_to_at_most_one_chunk(client, backend, codec, eos):
    backend.sizes = (4,)
    events = events_of((await ask(client, COMPLETIONS, stream=True)).text)
    num_commits = -(-(len(codec.encode(TEXT)) + 1) // 4)
    assert len(events) - 1 <= num_commits


@pytest.mark.parametrize("seed", [0, 7, -1, 2**63 - 1])
async def test_the_seed_in_force_is_told(client, seed):
    answer = (await ask(client, CHAT, seed=seed)).json()
    assert answer["viaserve"]["seed"] == answer["choices"][0]["viaserve"]["seed"] == seed


async def test_an_unseeded_answer_tells_the_seed_that_repeats_it(client, backend):
    answer = (await ask(client, CHAT)).json()
    assert answer["viaserve"]["seed"] == backend.requests[0].sessions[0].sampling.seed


async def test_the_extension_sums_the_choices(client):
    answer = (await ask(client, CHAT, n=3, viaserve={"mode": "two_tier"})).json()
    total, parts = answer["viaserve"], [choice["viaserve"] for choice in answer["choices"]]
    assert (total["mode"], total["exact"]) == (PlanKind.TWO_TIER.value, True)
    for name in ("rounds", "draft_tokens", "slim_rows", "slim_passes", "full_rows", "full_passes"):
        assert total[name] == sum(part[name] for part in parts)
    assert sum(total["tokens_by_tier"].values()) == answer["usage"]["completion_tokens"]
    assert total["rounds"] > 0


async def test_seeds_that_differ_are_told_with_each_choice_only(client):
    answer = (await ask(client, COMPLETIONS, prompt=["a", "b"])).json()
    assert answer["viaserve"]["seed"] is None
    assert len({choice["viaserve"]["seed"] for choice in answer["choices"]}) == 2


@pytest.mark.parametrize("fields", [{}, {"stop": "wor"}, {"max_tokens": 5}])
async def test_provenance_names_the_tier_of_every_token_counted(client, fields):
    asks = {"seed": 1, "viaserve": {"provenance": True}, **fields}
    answer = (await ask(client, CHAT, **asks)).json()
    runs = answer["choices"][0]["viaserve"]["provenance"]
    assert all(first[0] != second[0] for first, second in itertools.pairwise(runs))
    tiers = [tier for tier, count in runs for _ in range(count)]
    assert len(tiers) == answer["usage"]["completion_tokens"]
    events = events_of((await ask(client, CHAT, stream=True, **asks)).text)[:-1]
    streamed = [tier for event in events for tier in event.get("viaserve", {}).get("tiers", [])]
    assert streamed == tiers


@pytest.mark.parametrize("fields", [{}, {"stop": "wor"}, {"stop": "xyz"}, {"max_tokens": 19}])
async def test_every_character_of_a_stream_comes_with_a_token(client, fields):
    asks = {"seed": 1, "viaserve": {"provenance": True}, **fields}
    events = events_of((await ask(client, CHAT, stream=True, **asks)).text)[:-1]
    chunks = [event for event in events if "tiers" in event.get("viaserve", {})]
    assert chunks
    for chunk in chunks:
        text = chunk["choices"][0]["delta"].get("content", "")
        assert len(chunk["viaserve"]["chars"]) == len(chunk["viaserve"]["tiers"])
        assert sum(chunk["viaserve"]["chars"]) == len(text)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("fields", [{}, {"stop": "wor"}, {"max_tokens": 5}, {"n": 2}])
async def test_token_ids_name_every_token_counted(client, path, fields):
    asks = {"seed": 1, "viaserve": {"token_ids": True, "mode": "off"}, **fields}
    answer = (await ask(client, path, **asks)).json()
    events = events_of((await ask(client, path, stream=True, **asks)).text)[:-1]
    expected = [*CODEC.encode(TEXT), EOS]
    for choice in answer["choices"]:
        ids = choice["viaserve"]["token_ids"]
        assert ids == expected[: len(ids)]
        streamed = [
            token
            for event in events
            if event["choices"][0]["index"] == choice["index"]
            for token in event.get("viaserve", {}).get("token_ids", [])
        ]
        assert streamed == ids
    counted = [len(choice["viaserve"]["token_ids"]) for choice in answer["choices"]]
    assert sum(counted) == answer["usage"]["completion_tokens"]


async def test_no_token_ids_unless_asked_for(client):
    answer = (await ask(client, CHAT)).json()
    assert "token_ids" not in answer["choices"][0]["viaserve"]
    assert "token_ids" not in (await ask(client, CHAT, stream=True)).text


async def test_held_back_text_is_shown_when_no_stop_string_follows(client, backend, codec, eos):
    backend.answer = lambda spec: [*codec.encode("say sto"), eos]
    answer = (await ask(client, COMPLETIONS, stop="stop")).json()
    assert shown(answer["choices"][0]) == "say sto"


async def test_concurrent_answers_do_not_mix(client, backend, codec, eos):
    backend.answer = lambda spec: [*codec.encode(f"seed {spec.sampling.seed}"), eos]
    answers = await asyncio.gather(*(ask(client, CHAT, seed=seed) for seed in range(20)))
    for seed, answer in enumerate(answers):
        assert shown(answer.json()["choices"][0]) == f"seed {seed}"
