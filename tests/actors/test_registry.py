"""Laws of the registry: who announces is listed, who falls silent is not, who watches hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.messages import Membership, Waiting
from actors.registry import Registry
from tests.actors.fakes import LARGE, FakeWorker, ManualTime, one_pass, tasks_since, until

SOON_S = 0.001
LONG_S = 20.0
TTL_S = 30.0


@pytest.fixture
def time() -> ManualTime:
    return ManualTime()


@pytest.fixture
async def registry(time: ManualTime) -> AsyncIterator[Registry]:
    """Ends with: no task of it is left."""
    before = asyncio.all_tasks()
    yield Registry(clock=time)
    assert tasks_since(before) == set()


def ids(members: Membership) -> set[str]:
    return {entry.report.worker_id for entry in members.workers}


def worker(worker_id: str) -> FakeWorker:
    return FakeWorker(worker_id, LARGE)


async def test_announced_worker_is_listed_until_it_is_withdrawn(registry: Registry):
    await registry.announce(worker("a").entry, TTL_S)
    await registry.announce(worker("b").entry, TTL_S)
    assert ids(await registry.watch(-1, SOON_S)) == {"a", "b"}
    await registry.withdraw("a")
    await registry.withdraw("a")
    assert ids(await registry.watch(-1, SOON_S)) == {"b"}


async def test_silent_worker_expires_and_a_renewed_one_does_not(
    registry: Registry, time: ManualTime
):
    await registry.announce(worker("silent").entry, TTL_S)
    await registry.announce(worker("alive").entry, TTL_S)
    for _ in range(4):
        time.advance(10.0)
        await registry.announce(worker("alive").entry, TTL_S)
    assert ids(await registry.watch(-1, SOON_S)) == {"alive"}


async def test_renewal_keeps_the_version_and_brings_the_latest_report(registry: Registry):
    await registry.announce(worker("a").entry, TTL_S)
    version = (await registry.watch(-1, SOON_S)).version
    renewed = worker("a").entry
    await registry.announce(renewed, TTL_S)
    members = await registry.watch(version, SOON_S)
    assert members.version == version
    assert members.workers == (renewed,)


@pytest.mark.parametrize("change", ["announce", "withdraw", "expire", "drain"])
async def test_every_watcher_hears_of_a_change_at_once(
    registry: Registry, time: ManualTime, change: str
):
    await registry.announce(worker("a").entry, TTL_S)
    version = (await registry.watch(-1, SOON_S)).version
    watches = [asyncio.create_task(registry.watch(version, LONG_S)) for _ in range(3)]
    await one_pass()
    match change:
        case "announce":
            await registry.announce(worker("b").entry, TTL_S)
        case "withdraw":
            await registry.withdraw("a")
        case "drain":
            leaving = worker("a")
            leaving.draining = True
            await registry.announce(leaving.entry, TTL_S)
        case "expire":
            time.advance(31.0)
            await registry.watch(version, LONG_S)
    expected = {"announce": {"a", "b"}, "drain": {"a"}}.get(change, set())
    for members in await asyncio.gather(*watches):
        assert members.version > version
        assert ids(members) == expected
        assert any(entry.draining for entry in members.workers) == (change == "drain")


async def test_watcher_hears_of_silence_when_it_has_lasted_not_at_its_next_look(
    registry: Registry, time: ManualTime, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", time.call_later)
    await registry.announce(worker("silent").entry, 3.0)
    await registry.announce(worker("alive").entry, TTL_S)
    version = (await registry.watch(-1, LONG_S)).version
    watch = asyncio.create_task(registry.watch(version, LONG_S))
    await until(lambda: time.pending)
    time.advance(2.0)
    await one_pass()
    assert not watch.done()
    time.advance(1.0)
    assert ids(await watch) == {"alive"}


async def test_watch_of_an_old_version_does_not_wait(registry: Registry):
    await registry.announce(worker("a").entry, TTL_S)
    members = await asyncio.wait_for(registry.watch(-1, LONG_S), LONG_S / 2)
    assert ids(members) == {"a"}


async def test_no_change_is_lost_between_two_watches(registry: Registry):
    seen: list[set[str]] = []

    async def follow() -> None:
        version = -1
        while len(seen) == 0 or len(seen[-1]) < 20:
            members = await registry.watch(version, LONG_S)
            version = members.version
            seen.append(ids(members))

    followers = [asyncio.create_task(follow()) for _ in range(2)]
    await asyncio.gather(*(registry.announce(worker(f"w{i}").entry, TTL_S) for i in range(10)))
    await one_pass()
    await asyncio.gather(*(registry.announce(worker(f"w{i}").entry, TTL_S) for i in range(10, 20)))
    await asyncio.wait_for(asyncio.gather(*followers), LONG_S / 2)


async def test_cancelled_watch_leaves_the_registry_usable(registry: Registry):
    watch = asyncio.create_task(registry.watch(0, LONG_S))
    await one_pass()
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
    await registry.announce(worker("a").entry, TTL_S)
    assert ids(await registry.watch(0, LONG_S)) == {"a"}


async def test_waiting_worker_is_listed_apart_until_it_is_announced_or_withdrawn(
    registry: Registry,
):
    for worker_id in ("a", "b"):
        await registry.wait(Waiting(worker_id, "large", False, "no room"), TTL_S)
    await registry.wait(Waiting("b", "large", True, "loads"), TTL_S)
    members = await registry.watch(-1, SOON_S)
    assert members.workers == ()
    assert [(w.worker_id, w.placed) for w in members.waiting] == [("a", False), ("b", True)]
    await registry.announce(worker("b").entry, TTL_S)
    await registry.withdraw("a")
    members = await registry.watch(-1, SOON_S)
    assert ids(members) == {"b"}
    assert members.waiting == ()


async def test_silent_waiting_worker_expires(registry: Registry, time: ManualTime):
    await registry.wait(Waiting("a", "large", False, "no room"), TTL_S)
    time.advance(31.0)
    assert (await registry.watch(-1, SOON_S)).waiting == ()
