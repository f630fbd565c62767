"""Laws of the timeline in answers: there where asked for, bounded, the same streamed or whole."""

from __future__ import annotations

import pytest

from actors.ingress.timeline import MAX_ENTRIES, timeline_of
from policies.vocabulary import Stage, StageTime, Tier
from tests.ingress.conftest import chat_body, completion_body, events_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def stage(number: int = 0) -> StageTime:
    return StageTime(
        Stage.VERIFY, Tier.FULL, "large", "large-1", number, 0.25, 0.0625, 0.05, 3, 5, 2
    )


ENTRY = {
    "span": "verify",
    "tier": "full",
    "pool": "large",
    "worker": "large-1",
    "round": 0,
    "start_ms": 250.0,
    "ms": 62.5,
    "busy_ms": 50.0,
    "batch": 3,
    "rows": 5,
    "committed": 2,
}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_timeline_stands_in_the_last_chunk_and_in_the_whole_answer(client, backend, path):
    backend.stages = (stage(),)
    make = chat_body if path == CHAT else completion_body
    body = make(viaserve={"timeline": True})
    whole = (await client.post(path, json=body)).json()
    count = len(whole["viaserve"]["timeline"])
    assert whole["viaserve"]["timeline"] == [ENTRY] * count
    assert whole["choices"][0]["viaserve"]["timeline"] == [ENTRY] * count
    assert "timeline_truncated" not in whole["viaserve"]
    events = events_of((await client.post(path, json={**body, "stream": True})).text)
    told = [event["viaserve"] for event in events[:-1] if "viaserve" in event]
    assert [len(extension["timeline"]) for extension in told] == [count]
    [request, _] = backend.requests
    assert request.timed.told
    assert request.timed.came_s > 0


async def test_each_choice_has_its_own(client, backend):
    backend.stages = (stage(),)
    body = chat_body(n=2, viaserve={"timeline": True})
    whole = (await client.post(CHAT, json=body)).json()
    assert "timeline" not in whole["viaserve"]
    assert all(choice["viaserve"]["timeline"] for choice in whole["choices"])


async def test_nothing_is_timed_that_nobody_asked_for(client, backend):
    whole = (await client.post(CHAT, json=chat_body())).json()
    assert "timeline" not in whole["viaserve"]
    assert backend.requests[0].timed is None


async def test_timeline_must_be_a_bool(client):
    reply = await client.post(CHAT, json=chat_body(viaserve={"timeline": "yes"}))
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "viaserve.timeline"


def test_a_long_timeline_is_cut_and_says_so():
    assert "timeline_truncated" not in timeline_of([stage()] * MAX_ENTRIES)
    long = timeline_of([stage(i) for i in range(MAX_ENTRIES + 1)])
    assert long["timeline_truncated"] is True
    assert [entry["round"] for entry in long["timeline"]] == list(range(MAX_ENTRIES))
