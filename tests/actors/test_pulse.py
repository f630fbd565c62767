"""Laws of signs of life: none is missed or added to what is said, and silence ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from actors.pulse import heard, pulsed
from tests.actors.fakes import ManualTime, one_pass, tasks_since, until

EVERY_S = 2.0
SILENCE_S = 10.0


class Stream:
    """Says what is put in; None ends it, an exception is raised."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[list[int] | Exception | None] = asyncio.Queue()
        self.closed = False

    async def batches(self) -> AsyncGenerator[list[int], None]:
        try:
            while (batch := await self.inbox.get()) is not None:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            self.closed = True


@pytest.fixture
async def time(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ManualTime]:
    """Ends with: no timer and no task is left."""
    loop, time = asyncio.get_running_loop(), ManualTime()
    before = asyncio.all_tasks()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "call_later", time.call_later)
        patch.setattr(loop, "call_at", time.call_at)
        yield time
    assert time.pending == 0
    assert tasks_since(before) == set()


async def test_silence_is_filled_with_empty_batches_and_words_pass_unchanged(time: ManualTime):
    stream, seen = Stream(), []

    async def listen() -> None:
        async with aclosing(pulsed(stream.batches(), EVERY_S)) as batches:
            async for batch in batches:
                seen.append(batch)

    listening = asyncio.create_task(listen())
    for said in ([[1]], [[], []], [[2], [3]], [[]]):
        for batch in said:
            if batch:
                stream.inbox.put_nowait(batch)
            else:
                await until(lambda: time.pending)
                time.advance(EVERY_S)
            count = len(seen)
            await until(lambda n=count: len(seen) > n)
    stream.inbox.put_nowait(None)
    await listening
    assert seen == [[1], [], [], [2], [3], []]
    assert stream.closed


@pytest.mark.parametrize("wrap", [pulsed, heard])
async def test_failure_of_the_stream_is_its_listeners(time: ManualTime, wrap):
    stream = Stream()
    stream.inbox.put_nowait(ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        await anext(wrap(stream.batches(), EVERY_S))
    assert stream.closed


@pytest.mark.parametrize("wrap", [pulsed, heard])
@pytest.mark.parametrize("waiting", [False, True])
async def test_closing_or_cancelling_closes_the_stream(time: ManualTime, waiting: bool, wrap):
    stream = Stream()
    stream.inbox.put_nowait([1])
    batches = wrap(stream.batches(), EVERY_S)
    assert await anext(batches) == [1]
    if waiting:
        task = asyncio.create_task(anext(batches))
        await until(lambda: time.pending)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await batches.aclose()
    assert stream.closed


async def test_stream_that_falls_silent_is_given_up_after_the_bound(time: ManualTime):
    stream = Stream()
    batches = heard(stream.batches(), SILENCE_S)
    for batch in ([1], []):
        stream.inbox.put_nowait(batch)
        assert await anext(batches) == batch
        time.advance(SILENCE_S)
    waiting = asyncio.create_task(anext(batches))
    await until(lambda: time.pending)
    time.advance(SILENCE_S - 1)
    await one_pass()
    assert not waiting.done()
    time.advance(1)
    with pytest.raises(TimeoutError):
        await waiting
    assert stream.closed
