"""Balance in Serve: a load beside the cheap worker moves work to the large one, and back when it
ends; whoever did it, the bytes are those of plain decoding."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.server import Server, serving
from tests.serving.test_endpoint import PROMPTS, answer, body, until_idle

# It compares shares of rounds under a load of its own making, and any other load disturbs it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "VIASERVE_LOAD_TESTS" not in os.environ,
        reason="for a machine that does nothing else: set VIASERVE_LOAD_TESTS=1",
    ),
]

# Prompt lookup takes no time that a load could lengthen.
SETTINGS = ["model.dtype=float32", "model.context=1024", "draft.lookup=false"]
NUM_STREAMS = 2
BOUND_S = 1200.0
WINDOW_ROUNDS = 60
HOT, MILD = 8, 1
"""Busy loops beside the cheap worker, and at all times beside the large one: its steps are then
dear enough for drafts to pay on any machine. Each gets as much of the core as the worker."""


def pin(pid: int, core: int) -> None:
    """All threads of a process to one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


@contextmanager
def busy_loops(number: int, core: int, beside: int) -> Iterator[None]:
    """So many processes that do nothing as fast as they can, as important as the one beside."""
    niceness = os.getpriority(os.PRIO_PROCESS, beside)
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        for loop in loops:
            pin(loop.pid, core)
            os.setpriority(os.PRIO_PROCESS, loop.pid, niceness)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


class Shares:
    """Share of the rounds that a worker drafted for, over the last rounds, as /ready tells it."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._seen: list[tuple[int, int]] = []

    async def until(self, holds: Callable[[float], bool]) -> None:
        """Until a window of rounds from now on has such a share."""
        self._seen = [await self._totals()]
        share = 0.0
        for _ in range(int(BOUND_S)):
            await asyncio.sleep(1.0)
            self._seen.append(await self._totals())
            rounds, drafted = self._seen[-1]
            # The shortest window that is long enough.
            begins = [then for then in self._seen if rounds - then[0] >= WINDOW_ROUNDS]
            if begins:
                share = (drafted - begins[-1][1]) / (rounds - begins[-1][0])
                if holds(share):
                    return
        raise AssertionError((share, await self._status()))

    async def _totals(self) -> tuple[int, int]:
        """Rounds so far, and those of them with a draft."""
        status = await self._status()
        taken = status["auto"]["rounds"]
        plain = sum(count for name, count in taken.items() if name.startswith("off:"))
        skipped = sum(pool.get("skipped_proposals", 0) for pool in status["pools"])
        return sum(taken.values()), sum(taken.values()) - plain - skipped

    async def _status(self) -> dict[str, Any]:
        return (await self._client.get("/ready")).json()


@asynccontextmanager
async def streams(
    client: httpx.AsyncClient, requests: Sequence[dict[str, Any]], wanted: Sequence[str]
) -> AsyncIterator[None]:
    """Ask again and again, side by side; each answer must be the wanted one."""

    async def ask(first: int) -> None:
        number = first
        while True:
            at = number % len(requests)
            text, about = await answer(client, requests[at])
            assert text == wanted[at], about
            number += 1

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(ask(first)) for first in range(NUM_STREAMS)]
        yield
        for task in asking:
            task.cancel()


def pool_of(server: Server, tier: str) -> int:
    """The process of the worker that hosts the tier."""
    [pid] = [w["pid"] for w in server.ready()["workers"] if tier in w["tiers"]]
    return pid


async def test_a_load_beside_the_cheap_worker_moves_work_away_and_back() -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("needs a core for each worker")
    requests = [body(prompt, temperature=0.0, max_tokens=48) for prompt in PROMPTS]
    with serving(SETTINGS, config="config/two-pools.yaml") as server:
        cheap, large = pool_of(server, "draft"), pool_of(server, "full")
        pin(cheap, cores[0])
        pin(large, cores[1])
        async with httpx.AsyncClient(base_url=server.url, timeout=900.0) as client:
            off = [
                (await answer(client, request | {"viaserve": {"mode": "off"}}))[0]
                for request in requests
            ]
            shares = Shares(client)
            with busy_loops(MILD, cores[1], large):
                async with streams(client, requests, off):
                    await shares.until(lambda share: share > 0.5)
                    with busy_loops(HOT, cores[0], cheap):
                        await shares.until(lambda share: share < 0.2)
                    await shares.until(lambda share: share > 0.5)
            await until_idle(client)
