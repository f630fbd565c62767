"""Laws of draining: sessions move on with their token ids, and no token is lost or made twice."""

from __future__ import annotations

import asyncio

import pytest

from policies.vocabulary import Plan
from policies.work import WorkKind
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    OFF,
    PLANS,
    TWO_TIER,
    FakeWorker,
    World,
    answer,
    at_call,
    one_pass,
    plain,
    spec,
    until,
)


def drain(world: World, worker: FakeWorker) -> None:
    """As the registry tells it: all workers, one of them draining."""
    worker.draining = True
    world.announce(*world.workers)


def begun(*workers: FakeWorker) -> int:
    """Calls that made tokens; the chunks of a prefix that a move computes again are none."""
    items = [item for worker in workers for request in worker.work for item in request.items]
    return sum(item.kind is not WorkKind.EXTEND for item in items)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
@pytest.mark.parametrize("victim", ["cheap1", "large1"])
@pytest.mark.parametrize("at", [1, 2, 5])
async def test_draining_costs_no_byte_and_no_step(world: World, at: int, victim: str, plan: Plan):
    names = {"cheap1": CHEAP, "cheap2": CHEAP, "large1": LARGE, "large2": LARGE}
    workers = {name: world.worker(name, tiers) for name, tiers in names.items()}
    leaving = workers[victim]
    leaving.before_step = at_call(at, lambda: drain(world, leaving))
    router = world.router(*workers.values())
    specs = [spec(f"s{i}", plan, seed=i) for i in range(6)]
    seen = await asyncio.gather(*(answer(router, session) for session in specs))
    assert seen == [plain(session) for session in specs]
    if leaving.draining:
        # Those that were on their way when it was told.
        assert len(leaving.work) <= at + 1
    if plan is OFF:
        assert begun(*workers.values()) == 6 * 7, "1 and then 4 of 24 tokens a call"


async def test_worker_that_drains_is_empty_while_its_sessions_go_on(world: World):
    old, new = world.worker("old", LARGE), world.worker("new", LARGE)
    router = world.router(old)
    tasks = [asyncio.create_task(answer(router, spec(f"s{i}", seed=i))) for i in range(4)]
    await until(lambda: len(old.work) == 3)
    new.go.clear()
    drain(world, old)
    await until(lambda: new.in_flight and not old.in_flight and not old.holds)
    assert not any(task.done() for task in tasks)
    new.go.set()
    assert await asyncio.gather(*tasks) == [plain(spec(f"s{i}", seed=i)) for i in range(4)]


async def test_who_waits_there_moves_at_once(world: World):
    old, new = world.worker("old", LARGE), world.worker("new", LARGE)
    router = world.router(old, max_in_flight=1)
    old.go.clear()
    first = asyncio.create_task(answer(router, spec("first")))
    await until(lambda: old.in_flight)
    second = asyncio.create_task(answer(router, spec("second", seed=1)))
    await until(lambda: router.status()["workers"][0]["waiting"])
    drain(world, old)
    assert await second == plain(spec("second", seed=1))
    assert not first.done()
    old.go.set()
    assert await first == plain(spec("first"))
    assert {item.session_id for request in old.work for item in request.items} == {"first"}
    assert len(new.work) > 6


async def test_last_worker_of_full_serves_out_whom_it_has_and_nobody_new(world: World):
    old = world.worker("old", LARGE)
    router = world.router(old)
    first = asyncio.create_task(answer(router, spec("first")))
    await until(lambda: len(old.work) == 2)
    drain(world, old)
    second = asyncio.create_task(answer(router, spec("second", seed=1)))
    assert await first == plain(spec("first"))
    assert not second.done()
    world.announce(old, world.worker("new", LARGE))
    assert await second == plain(spec("second", seed=1))
    assert {item.session_id for request in old.work for item in request.items} == {"first"}


async def test_without_another_cheap_worker_decoding_is_plain(world: World):
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    router = world.router(cheap, large)
    session = spec("s", TWO_TIER, max_tokens=60)
    task = asyncio.create_task(answer(router, session))
    await until(lambda: len(cheap.work) == 2)
    drain(world, cheap)
    await until(lambda: not cheap.in_flight and not cheap.holds)
    asked = len(cheap.work)
    assert not task.done()
    assert await task == plain(session)
    assert len(cheap.work) == asked
    last = large.work[-1].items[0]
    assert last.kind is WorkKind.DECODE


async def test_no_more_run_than_the_workers_of_full_have_slots_for(world: World):
    first, second = (world.worker(name, LARGE, slots=2) for name in ("first", "second"))
    for worker in (first, second):
        worker.go.clear()
    router = world.router(first, share=1.0)
    tasks = [asyncio.create_task(answer(router, spec(f"s{i}", seed=i))) for i in range(6)]
    await until(lambda: first.in_flight)
    await one_pass()
    assert (router.status()["running"], router.status()["queued"]) == (2, 4)
    assert {name: d.waiting for name, d in router.demand().items()} == {"fake": 4}
    world.announce(first, second)
    await until(lambda: second.in_flight)
    assert (router.status()["running"], router.status()["queued"]) == (4, 2)
    first.go.set()
    second.go.set()
    assert await asyncio.gather(*tasks) == [plain(spec(f"s{i}", seed=i)) for i in range(6)]
