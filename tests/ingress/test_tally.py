"""Laws of an ingress's plain numbers: what requests took and how they ended, each once."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from actors.ingress.app import create_app
from actors.ingress.errors import Overloaded
from actors.ingress.tally import RequestTally
from tests.ingress.conftest import chat_body
from tests.ingress.fakes import RawClient

CHAT = "/v1/chat/completions"


class Steps:
    """A clock that goes on by one second at each look."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


@pytest.fixture
def tally() -> RequestTally:
    return RequestTally(Steps())


@pytest.fixture
def app(settings, codec, backend, schemas, tally):
    return create_app(settings, codec, backend, schemas, tally)


@pytest.mark.parametrize("stream", [False, True])
async def test_each_choice_gives_one_first_token_and_one_end(client, backend, tally, stream):
    answer = await client.post(CHAT, json=chat_body(n=2, stream=stream, max_tokens=6))
    assert answer.status_code == 200
    taken = tally.take()
    [mode] = taken.first_s
    assert len(taken.first_s[mode]) == len(taken.whole_s[mode]) == 2
    # Of six tokens in commits of 1, 3 and 2: two gaps a choice, over their tokens.
    assert len(taken.gap_s[mode]) == 4
    assert taken.ended == {(mode, "length"): 2}
    prompt = len(backend.requests[0].sessions[0].tokens)
    assert taken.prompt_tokens == {mode: prompt}
    assert not tally.take().first_s


async def test_a_gap_is_shared_by_the_tokens_that_ended_it(client, tally):
    await client.post(CHAT, json=chat_body(max_tokens=6))
    [gaps] = tally.take().gap_s.values()
    assert gaps == [pytest.approx(1 / 3), pytest.approx(1 / 2)]


async def test_an_error_is_counted_by_its_status_and_ends_no_choice(client, backend, tally):
    backend.refusal = Overloaded(1.0)
    assert (await client.post(CHAT, json=chat_body())).status_code == 429
    taken = tally.take()
    assert [status for _, status in taken.failed] == ["429"]
    assert not taken.ended


async def test_a_client_that_leaves_aborts_its_choices(app, backend, tally, no_leaks):
    backend.hang_after = 1
    client = RawClient(app, CHAT, chat_body(stream=True))
    task = asyncio.create_task(client.run())
    await backend.silent.wait()
    client.leave()
    await task
    assert [reason for _, reason in tally.take().ended] == ["abort"]


@pytest.mark.parametrize(
    ("metrics", "keys", "status"),
    [("open", ("k",), 200), ("key", ("k",), 401), ("key", (), 200), ("off", (), 404)],
)
async def test_metrics_are_open_or_need_a_key_or_are_not_there(
    settings, codec, backend, schemas, metrics, keys, status
):
    from dataclasses import replace

    chosen = replace(settings, metrics=metrics, api_keys=keys)
    transport = httpx.ASGITransport(create_app(chosen, codec, backend, schemas))
    async with httpx.AsyncClient(transport=transport, base_url="http://ingress") as http:
        answer = await http.get("/metrics")
        assert answer.status_code == status
        if status == 200:
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert "viaserve_x 1" in answer.text
