"""Laws of a pool: one worker lives, is announced while it does, and never outlives the pool."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from actors import pool as pool_module
from actors.engine.build import EngineSpec, TierSource
from actors.liveness import Liveness
from actors.messages import Waiting, WorkerEntry, WorkerReport
from actors.pool import Pool, WorkerGone, WorkerUnreachable
from actors.usage import WorkerUsage
from actors.worker import WorkerSpec
from policies.vocabulary import Tier
from tests.actors.fakes import CHEAP, LARGE, FakeWorker, ManualTime, one_pass, tasks_since, until

HEARTBEAT_S = 2.0
LIVENESS = Liveness(HEARTBEAT_S, silence_s=10.0, dead_s=60.0)


class Workers:
    """Starts handles, which are worker ids. `loaded` unset holds the reports, of the worker in
    `silent` for ever; a worker in `dying` is gone when asked, one in `away` out of reach. `lacks`:
    why those that have not loaded have no place; `moved`: those that another one would have."""

    def __init__(self) -> None:
        self.refuses = ""
        self.loaded = asyncio.Event()
        self.loaded.set()
        self.dying: set[str] = set()
        self.lacks: str | None = None
        self.moved: set[str] = set()
        self.silent: set[str] = set()
        self.away: set[str] = set()
        self.alive: list[str] = []
        self.spawned: list[str] = []
        self.sessions = 0
        self.tiers: tuple[Tier, ...] = LARGE
        self.busy_s = self.item_s = 0.0
        self.tidied: list[str] = []
        self.closed: list[str] = []

    def spawn(self, spec: WorkerSpec) -> str:
        if self.refuses:
            raise ValueError(self.refuses)
        self.spawned.append(spec.worker_id)
        self.alive.append(spec.worker_id)
        return spec.worker_id

    async def report(self, handle: str) -> WorkerReport:
        await self.loaded.wait()
        if handle in self.silent:
            await asyncio.Event().wait()
        if handle in self.dying:
            raise WorkerGone("killed by the kernel")
        if handle in self.away:
            raise WorkerUnreachable("no route to host")
        return replace(
            FakeWorker(handle, self.tiers).entry.report,
            sessions=self.sessions,
            busy_s=self.busy_s,
            item_s=self.item_s,
        )

    async def missing(self, handle: str) -> str | None:
        if handle in self.moved:
            raise WorkerGone("moves")
        return self.lacks

    def tidy(self, handle: str) -> None:
        self.tidied.append(handle)

    async def close(self, handle: str) -> None:
        self.closed.append(handle)

    def kill(self, handle: str) -> None:
        self.alive.remove(handle)


class Registry:
    """Remembers who is listed; can be away, or behind a dead link."""

    def __init__(self) -> None:
        self.listed: dict[str, WorkerEntry] = {}
        self.waiting: dict[str, Waiting] = {}
        self.waits: list[Waiting] = []
        self.away = False
        self.unreachable = False
        self.hangs = asyncio.Event()
        self.heard = 0
        self.ttl_s = 0.0

    async def announce(self, entry: WorkerEntry, ttl_s: float) -> None:
        if self.unreachable:
            self.hangs.set()
            await asyncio.Event().wait()
        self.heard += 1
        self.ttl_s = ttl_s
        if self.away:
            raise ConnectionError("the registry is restarting")
        self.listed[entry.report.worker_id] = entry
        self.waiting.pop(entry.report.worker_id, None)

    async def wait(self, waiting: Waiting, ttl_s: float) -> None:
        if self.away:
            raise ConnectionError("the registry is restarting")
        self.waits.append(waiting)
        self.waiting[waiting.worker_id] = waiting

    async def withdraw(self, worker_id: str) -> None:
        if self.away:
            raise ConnectionError("the registry is restarting")
        self.listed.pop(worker_id, None)
        self.waiting.pop(worker_id, None)


class Naps:
    """Stands in for `asyncio.sleep`: each nap lasts until it is ended."""

    def __init__(self) -> None:
        self.lengths_s: list[float] = []
        self._ended = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.lengths_s.append(seconds)
        await self._ended.acquire()

    def let_pass(self) -> None:
        """End the nap that began first."""
        self._ended.release()

    async def end(self) -> None:
        """Let the current nap pass, and wait for the next one."""
        count = len(self.lengths_s)
        self.let_pass()
        await until(lambda: len(self.lengths_s) > count)


class Supervised:
    """A pool under supervision, with everything it touches."""

    def __init__(self, naps: Naps) -> None:
        names = itertools.count()
        engine = EngineSpec({Tier.FULL: TierSource("model")}, "float32", "cpu", 1, 64, 64)
        self.naps = naps
        self.workers, self.registry = Workers(), Registry()
        self.pool = Pool(
            lambda: WorkerSpec(f"large-{next(names)}", "large", engine, 1, 0, None),
            self.workers,
            self.registry,
            LIVENESS,
        )

    def start(self) -> None:
        self.task = asyncio.create_task(self.pool.supervise())

    async def serve(self) -> None:
        """Start, and wait for the first nap."""
        self.start()
        await until(lambda: self.naps.lengths_s)

    async def stop(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task

    async def drain(self, limit_s: float) -> asyncio.Task[None]:
        """Begin it, and wait until the registry knows."""
        draining = asyncio.create_task(self.pool.drain(limit_s))
        await until(lambda: self.registry.listed["large-0"].draining)
        return draining


async def until_waits(here: Supervised, placed: bool) -> None:
    """Wakes with the pool's own heartbeat, which is a real one here."""
    async with asyncio.timeout(60):
        while not any(w.placed is placed for w in here.registry.waiting.values()):
            await one_pass()


@pytest.fixture
async def here(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervised]:
    """Ends with: no worker lives, none is listed, no task is left."""
    naps = Naps()
    monkeypatch.setattr(pool_module.asyncio, "sleep", naps)
    before = asyncio.all_tasks()
    supervised = Supervised(naps)
    yield supervised
    if not supervised.task.done():
        await supervised.stop()
    assert supervised.workers.alive == []
    assert supervised.registry.away or supervised.registry.listed == {}
    assert supervised.registry.away or supervised.registry.waiting == {}
    assert supervised.pool.report is None
    assert tasks_since(before) == set()


async def test_worker_is_announced_once_loaded_and_renewed_each_heartbeat(here: Supervised):
    here.workers.loaded.clear()
    here.start()
    await until(lambda: here.workers.spawned)
    assert here.registry.listed == {}
    here.workers.loaded.set()
    await until(lambda: here.naps.lengths_s)
    assert here.registry.listed["large-0"].handle == "large-0"
    await here.naps.end()
    await here.naps.end()
    assert (here.registry.heard, here.registry.ttl_s) == (3, LIVENESS.silence_s)
    assert here.naps.lengths_s == [HEARTBEAT_S] * 3
    assert here.workers.spawned == ["large-0"]


async def test_dead_worker_is_withdrawn_and_replaced_under_a_new_name(here: Supervised):
    await here.serve()
    here.workers.dying.add("large-0")
    await here.naps.end()
    assert here.registry.listed == {}
    assert here.workers.alive == []
    assert (here.pool.failures, here.pool.last_error) == (1, "killed by the kernel")
    await here.naps.end()
    assert set(here.registry.listed) == {"large-1"}
    assert here.workers.alive == ["large-1"]
    assert here.pool.starts == 2


async def test_backoff_grows_with_each_failure_up_to_a_bound(here: Supervised):
    here.workers.dying = {f"large-{i}" for i in range(100)}
    await here.serve()
    for _ in range(19):
        await here.naps.end()
    assert here.naps.lengths_s == [min(HEARTBEAT_S * n, 30.0) for n in range(1, 21)]


async def test_silent_worker_is_announced_no_more_and_ended_in_the_end(
    here: Supervised, monkeypatch: pytest.MonkeyPatch
):
    await here.serve()
    time = ManualTime()
    for name in ("call_later", "call_at"):
        monkeypatch.setattr(asyncio.get_running_loop(), name, getattr(time, name))
    here.workers.silent.add("large-0")
    here.naps.let_pass()
    await until(lambda: time.pending)
    time.advance(LIVENESS.dead_s - 1)
    await one_pass()
    assert (here.registry.heard, here.workers.alive) == (1, ["large-0"])
    time.advance(1)
    await until(lambda: len(here.naps.lengths_s) == 2)
    assert here.workers.alive == []
    assert here.pool.last_error == "it has not answered for 60 s"
    await here.naps.end()
    assert set(here.registry.listed) == {"large-1"}


async def test_worker_out_of_reach_is_withdrawn_at_once_and_listed_when_it_answers(
    here: Supervised,
):
    await here.serve()
    here.workers.away.add("large-0")
    for _ in range(3):
        await here.naps.end()
        assert here.registry.listed == {}
        assert here.registry.waiting["large-0"].why == "out of reach: no route to host"
        assert here.workers.alive == ["large-0"]
    here.workers.away.clear()
    await here.naps.end()
    assert set(here.registry.listed) == {"large-0"}
    assert here.pool.failures == 0


async def test_silent_worker_that_answers_again_is_the_same_one(here: Supervised):
    await here.serve()
    here.workers.loaded.clear()
    here.naps.let_pass()
    await one_pass()
    here.workers.loaded.set()
    await until(lambda: here.registry.heard == 2)
    assert here.workers.spawned == ["large-0"]


async def test_link_to_the_registry_that_is_dead_is_tried_again(
    here: Supervised, monkeypatch: pytest.MonkeyPatch
):
    await here.serve()
    time = ManualTime()
    for name in ("call_later", "call_at"):
        monkeypatch.setattr(asyncio.get_running_loop(), name, getattr(time, name))
    here.registry.unreachable = True
    here.naps.let_pass()
    await here.registry.hangs.wait()
    here.registry.unreachable = False
    time.advance(LIVENESS.silence_s)
    await until(lambda: len(here.naps.lengths_s) == 2)
    await here.naps.end()
    assert here.registry.heard == 2
    assert here.workers.spawned == ["large-0"]


async def test_backoff_begins_anew_once_a_worker_has_lived(here: Supervised):
    here.workers.dying = {f"large-{i}" for i in range(3)}
    await here.serve()
    for _ in range(3):
        await here.naps.end()
    assert set(here.registry.listed) == {"large-3"}
    await here.naps.end()
    here.workers.dying.add("large-3")
    await here.naps.end()
    assert here.pool.failures == 4
    assert here.naps.lengths_s[-1] == HEARTBEAT_S


@pytest.mark.parametrize("moment", ["not begun", "loading", "serving", "backing off"])
async def test_cancelling_ends_the_worker_at_any_moment(here: Supervised, moment: str):
    match moment:
        case "loading":
            here.workers.loaded.clear()
        case "backing off":
            here.workers.dying.add("large-0")
    here.start()
    match moment:
        case "loading":
            await until(lambda: here.workers.spawned)
        case "serving" | "backing off":
            await until(lambda: here.naps.lengths_s)
    await here.stop()
    assert here.workers.alive == []
    assert here.registry.listed == {}


async def test_worker_that_holds_sessions_is_asked_to_drop_idle_ones(here: Supervised):
    await here.serve()
    assert here.workers.tidied == []
    here.workers.sessions = 1
    await here.naps.end()
    await here.naps.end()
    assert here.workers.tidied == ["large-0"] * 2


async def test_registry_that_is_away_costs_no_worker(here: Supervised):
    here.registry.away = True
    await here.serve()
    assert here.workers.alive == ["large-0"]
    here.registry.away = False
    await here.naps.end()
    assert set(here.registry.listed) == {"large-0"}
    assert here.workers.spawned == ["large-0"]


async def test_worker_ends_with_the_pool_though_the_registry_is_away(here: Supervised):
    await here.serve()
    here.registry.away = True
    await here.stop()
    assert here.workers.alive == []


async def test_worker_without_a_place_says_why_until_it_serves(
    here: Supervised, caplog: pytest.LogCaptureFixture
):
    here.pool.liveness = replace(LIVENESS, heartbeat_s=0.001)
    here.workers.loaded.clear()
    here.workers.lacks = "no GPU is free"
    here.start()
    await until(lambda: here.registry.waiting)
    assert here.registry.waiting["large-0"] == Waiting("large-0", "large", False, "no GPU is free")
    here.workers.lacks = None
    await until_waits(here, placed=True)
    assert [record.getMessage() for record in caplog.records] == [
        "worker large-0 has no place yet: no GPU is free"
    ]
    here.workers.loaded.set()
    await until(lambda: here.registry.listed)
    assert here.registry.waiting == {}


async def test_worker_that_another_place_would_take_is_started_anew(here: Supervised):
    here.workers.loaded.clear()
    here.workers.moved = {"large-0"}
    await here.serve()
    assert here.workers.alive == []
    assert here.registry.waits[-1].why == "starts anew after: moves"
    here.workers.loaded.set()
    await here.naps.end()
    assert set(here.registry.listed) == {"large-1"}


async def test_what_ended_the_last_worker_is_said_until_the_next_one_serves(here: Supervised):
    await here.serve()
    here.workers.dying.add("large-0")
    await here.naps.end()
    [waiting] = here.registry.waiting.values()
    assert waiting == Waiting("large-1", "large", False, "starts anew after: killed by the kernel")
    await here.naps.end()
    assert here.registry.waiting == {}


async def test_worker_that_cannot_be_started_says_why_and_is_tried_again(here: Supervised):
    here.workers.refuses = "no such option"
    await here.serve()
    [waiting] = here.registry.waiting.values()
    assert waiting.why == "starts anew after: it could not be started: no such option"
    here.workers.refuses = ""
    await here.naps.end()
    assert set(here.registry.listed) == {"large-1"}


async def test_drain_lasts_until_the_worker_holds_no_session(here: Supervised):
    here.workers.sessions = 2
    await here.serve()
    draining = await here.drain(limit_s=60.0)
    await here.naps.end()  # the supervisor's
    await here.naps.end()  # the drain's
    assert not draining.done()
    assert here.registry.listed["large-0"].draining, "renewed as such"
    here.workers.sessions = 0
    await here.naps.end()
    here.naps.let_pass()
    await until(draining.done)
    assert here.workers.alive == ["large-0"], "it serves until the pool ends"
    assert here.workers.closed == ["large-0"]


async def test_drain_has_a_bound(here: Supervised):
    here.workers.sessions = 1
    await here.serve()
    draining = await here.drain(limit_s=2.5 * HEARTBEAT_S)
    for _ in range(5):
        await here.naps.end()
        assert not draining.done()
    here.naps.let_pass()
    await until(draining.done)
    assert here.workers.closed == ["large-0"]


async def test_nobody_waits_for_a_worker_that_is_not_in_use_yet(here: Supervised):
    here.workers.loaded.clear()
    here.start()
    await until(lambda: here.workers.spawned)
    await here.pool.drain(60.0)
    assert here.registry.heard == 0


async def test_worker_that_dies_while_it_drains_has_no_successor(here: Supervised):
    here.workers.sessions = 1
    await here.serve()
    draining = await here.drain(limit_s=60.0)
    here.workers.dying.add("large-0")
    here.naps.let_pass()
    here.naps.let_pass()
    await until(draining.done)
    await until(here.task.done)
    assert here.workers.spawned == ["large-0"]
    assert not here.workers.closed


async def test_usage_is_that_of_the_time_between_two_reports(here: Supervised):
    here.workers.tiers = CHEAP
    here.workers.busy_s, here.workers.item_s = 10.0, 640.0
    assert here.pool.usage is None
    await here.serve()
    here.workers.busy_s, here.workers.item_s = 12.0, 640.0 + 2.0 * 16
    await here.naps.end()
    assert here.pool.usage == WorkerUsage(None, 16 / 64, 64)
    here.workers.tiers, here.workers.sessions = LARGE, 48
    await here.naps.end()
    assert here.pool.usage == WorkerUsage(None, 48 / 64, 64)
    await here.stop()
    assert here.pool.usage is None
