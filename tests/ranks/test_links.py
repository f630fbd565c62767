"""Laws of the lines between ranks: messages arrive whole, strangers stay out, death is seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.attention import Span
from actors.engine.forward import Pack
from actors.engine.ranks.links import Hub, LinkError, Spoke
from actors.engine.ranks.packs import pack_of_bytes, pack_to_bytes

HOST = "127.0.0.1"
TOKEN = "0123456789abcdef" * 2
LIMIT_S = 60.0


@pytest.fixture
def star() -> Iterator[tuple[Hub, list[Spoke]]]:
    """A hub with followers 1 and 2; 2 called first."""
    hub = Hub(HOST, TOKEN, LIMIT_S)
    with ThreadPoolExecutor(1) as beside:
        met = beside.submit(hub.meet, 2)
        later = Spoke(HOST, hub.port, TOKEN, 2, LIMIT_S)
        first = Spoke(HOST, hub.port, TOKEN, 1, LIMIT_S)
        met.result(LIMIT_S)
    yield hub, [first, later]
    for spoke in (first, later):
        spoke.close()
    hub.close()


def test_every_follower_gets_every_message_whole_and_in_order(star):
    hub, spokes = star
    messages = [b"", b"pass", bytes(300_000)]
    with ThreadPoolExecutor(2) as beside:
        takers = [beside.submit(lambda s=s: [s.take() for _ in messages]) for s in spokes]
        for message in messages:
            hub.send(message)
        assert [taker.result(LIMIT_S) for taker in takers] == [messages] * 2


def test_a_stranger_is_not_counted():
    hub = Hub(HOST, TOKEN, LIMIT_S)
    with ThreadPoolExecutor(1) as beside:
        met = beside.submit(hub.meet, 1)
        stranger = Spoke(HOST, hub.port, "f" * 32, 1, LIMIT_S)
        with pytest.raises(LinkError):
            stranger.take()
        assert not met.done()
        own = Spoke(HOST, hub.port, TOKEN, 1, LIMIT_S)
        met.result(LIMIT_S)
    hub.send(b"hello")
    assert own.take() == b"hello"
    for end in (stranger, own, hub):
        end.close()


def test_a_hub_does_not_wait_for_ever():
    hub = Hub(HOST, TOKEN, 0.01)
    with pytest.raises(LinkError, match="0 of 1 followers came"):
        hub.meet(1)


def test_the_end_of_one_is_seen_by_the_other(star):
    hub, spokes = star
    seen = [threading.Event() for _ in range(3)]
    hub.watch(seen[0].set)
    for spoke, event in zip(spokes, seen[1:], strict=True):
        spoke.watch(event.set)
    spokes[1].close()
    assert seen[0].wait(LIMIT_S)
    assert not seen[1].is_set()
    hub.close()
    assert seen[1].wait(LIMIT_S)
    with pytest.raises(LinkError):
        spokes[0].take()


def test_the_end_is_seen_behind_messages_that_nobody_took(star):
    """A follower computes while it dies at the other end; it must not read on first."""
    hub, [spoke, _] = star
    seen = threading.Event()
    hub.send(b"unread")
    spoke.watch(seen.set)
    assert not seen.is_set()
    hub.close()
    assert seen.wait(LIMIT_S)


@st.composite
def packs(draw: st.DrawFn) -> Pack:
    spans: list[Span] = []
    row = 0
    for slot in draw(st.lists(st.integers(0, 1000), max_size=5, unique=True)):
        count = draw(st.integers(1, 20))
        spans.append(Span(slot, draw(st.integers(0, 10**6)), row, count))
        row += count
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=row, max_size=row))
    return Pack(ids, spans, draw(st.lists(st.integers(0, max(row - 1, 0)), max_size=row)))


@given(packs())
def test_a_pack_arrives_as_it_was_sent(pack: Pack):
    assert pack_of_bytes(pack_to_bytes(pack)) == pack
