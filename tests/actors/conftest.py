"""The world of a router test, and that nothing of it is left at the end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.actors.fakes import ManualTime, World, tasks_since, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Ends with: routers idle, workers empty, no timer, no task, no unretrieved exception."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    time = ManualTime()
    # Every timer of the loop, wait_for's included, then fires by hand.
    real, loop.call_later = loop.call_later, time.call_later  # type: ignore[method-assign]
    before = asyncio.all_tasks()
    gc.freeze()  # what is here already need not be looked through at the end
    here = World(time)
    try:
        yield here
        await until(lambda: all(router.idle for router in here.routers))
        for router in here.routers:
            status = router.status()
            assert (status["running"], status["queued"], status["steps_in_flight"]) == (0, 0, 0)
            assert [w["sessions"] for w in status["workers"] if w["sessions"]] == []
        for worker in here.workers:
            assert worker.in_flight == 0
            assert worker in here.excused or worker.holds == {}, worker.worker_id
        assert time.pending == 0
        gc.collect()
        assert tasks_since(before) == set()
        assert complaints == []
    finally:
        gc.unfreeze()
        loop.call_later = real  # type: ignore[method-assign]
