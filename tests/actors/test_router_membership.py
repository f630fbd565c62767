"""Laws of the router: workers that come, go and forget cost retries and never a byte."""

from __future__ import annotations

import asyncio

import pytest

from policies.vocabulary import Plan, Tier
from policies.work import WorkKind
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    PLANS,
    THREE_TIER,
    TWO_TIER,
    FakeWorker,
    World,
    answer,
    at_call,
    failing,
    in_time,
    one_pass,
    plain,
    spec,
    until,
)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
@pytest.mark.parametrize("victim", ["cheap1", "large1"])
@pytest.mark.parametrize("at", [1, 2, 5])
async def test_worker_that_dies_costs_no_byte(world: World, at: int, victim: str, plan: Plan):
    workers = {f"cheap{i}": world.worker(f"cheap{i}", CHEAP) for i in (1, 2)}
    workers |= {f"large{i}": world.worker(f"large{i}", LARGE) for i in (1, 2)}
    workers[victim].before_step = at_call(at, lambda: world.kill(workers[victim]))
    router = world.router(*workers.values())
    specs = [spec(f"s{i}", plan, seed=i) for i in range(6)]
    seen = await asyncio.gather(*(answer(router, session) for session in specs))
    assert seen == [plain(session) for session in specs]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
@pytest.mark.parametrize("at", [1, 3])
async def test_stream_waits_for_the_successor_of_a_dead_worker(world: World, at: int, plan: Plan):
    cheap, large = world.worker("cheap", CHEAP), world.worker("large1", LARGE)
    large.before_step = at_call(at, lambda: world.kill(large))
    router = world.router(cheap, large)
    specs = [spec(f"s{i}", plan, seed=i) for i in range(3)]
    tasks = [asyncio.create_task(answer(router, session)) for session in specs]
    await until(lambda: world.time.pending == 3)
    world.announce(cheap, world.worker("large2", LARGE))
    assert await asyncio.gather(*tasks) == [plain(session) for session in specs]


async def test_dead_worker_that_is_still_listed_costs_retries_only(world: World):
    dead, large = world.worker("dead", LARGE), world.worker("large", LARGE)
    world.kill(dead)
    router = world.router(dead, large)
    tasks = [asyncio.create_task(answer(router, spec(f"s{i}", seed=i))) for i in range(4)]
    for _ in range(5):
        world.announce(dead, large)
        await one_pass()
    assert await asyncio.gather(*tasks) == [plain(spec("", seed=i)) for i in range(4)]


@pytest.mark.parametrize("every", [1, 2, 3])
async def test_worker_that_forgets_is_told_again(world: World, every: int):
    workers = [world.worker("cheap", CHEAP), world.worker("large", LARGE)]
    for worker in workers:
        worker.before_step = lambda request, w=worker: (
            w.forget() if len(w.requests) % every == 0 else None
        )
    router = world.router(*workers)
    specs = [spec(f"s{i}", PLANS[i % 3], seed=i) for i in range(6)]
    seen = await asyncio.gather(*(answer(router, session) for session in specs))
    assert seen == [plain(session) for session in specs]


@pytest.mark.parametrize("plan", [TWO_TIER, THREE_TIER], ids=lambda plan: plan.kind)
async def test_without_a_cheap_worker_decoding_is_plain_until_one_comes(world: World, plan: Plan):
    large, cheap = world.worker("large", LARGE), world.worker("cheap", CHEAP)
    router = world.router(large)
    session = spec("s", plan, max_tokens=60)
    task = asyncio.create_task(answer(router, session))
    await until(lambda: len(large.work) == 3)
    assert {i.kind for request in large.work for i in request.items} == {WorkKind.DECODE}
    world.announce(large, cheap)
    assert await task == plain(session)
    assert any(i.kind is WorkKind.VERIFY for request in large.work for i in request.items)


async def test_worker_without_slim_is_no_home_for_three_tiers(world: World):
    draft, large = world.worker("draft", [Tier.DRAFT]), world.worker("large", LARGE)
    session = spec("s", THREE_TIER)
    assert await answer(world.router(draft, large), session) == plain(session)
    assert draft.requests == []


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
async def test_new_worker_under_an_old_id_is_a_new_worker(world: World, plan: Plan):
    cheap, old = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    old.before_step = at_call(2, lambda: world.kill(old))
    router = world.router(cheap, old)
    session = spec("s", plan)
    old.go.clear()
    task = asyncio.create_task(answer(router, session))
    await until(lambda: old.requests)
    new = world.worker("large", LARGE)
    world.excused.append(old)
    world.announce(cheap, new)
    old.go.set()
    assert await task == plain(session)
    assert len(old.work) == 1
    assert [w["worker_id"] for w in router.status()["workers"]] == ["cheap", "large"]


@pytest.mark.parametrize("end", ["answers", "raises", "dies"])
async def test_step_of_a_withdrawn_worker_changes_nothing_when_it_ends(world: World, end: str):
    """Its session is already waiting elsewhere: no second place, no second timer, no fault."""
    gone = world.worker("gone", LARGE)
    router = world.router(gone, max_failures=1)
    gone.go.clear()
    task = asyncio.create_task(answer(router, spec("s")))
    await until(lambda: gone.in_flight)
    world.excused.append(gone)
    world.announce()
    if end == "raises":
        gone.before_step = failing(RuntimeError("out of memory"))
    gone.dead = end == "dies"
    gone.go.set()
    await until(lambda: router.status()["steps_in_flight"] == 0)
    assert world.time.pending == 1
    world.announce(world.worker("new", LARGE))
    assert world.time.pending == 0
    assert await task == plain(spec("s"))


async def test_late_failure_of_an_old_worker_does_not_lose_its_namesake(world: World):
    old, new = world.worker("large", LARGE), world.worker("large", LARGE)
    router = world.router(old)
    old.go.clear()
    task = asyncio.create_task(answer(router, spec("s")))
    await until(lambda: old.in_flight)
    new.go.clear()
    world.announce(new)
    await until(lambda: new.in_flight)
    world.kill(old)
    old.go.set()
    await until(lambda: old.in_flight == 0)
    assert len(router.status()["workers"]) == 1
    new.go.set()
    assert await task == plain(spec("s"))
    assert [len(request.items) for request in new.work] == [1] * len(new.work)


async def test_every_fault_at_once_costs_no_byte(world: World):
    """A seeded storm: workers die, forget, fail and are replaced while clients come and go."""
    population: list[FakeWorker] = []

    def recruit(tiers) -> FakeWorker:
        worker = world.worker(f"w{len(world.workers)}", tiers, token_budget=16)
        worker.before_step = lambda request: mishap(worker)
        population.append(worker)
        return worker

    def mishap(worker: FakeWorker) -> None:
        match (len(worker.requests) * 7 + int(worker.worker_id[1:])) % 31:
            case 3:
                worker.forget()
            case 11:
                raise RuntimeError("out of memory")
            case 17:
                world.kill(worker)
                population.remove(worker)
                recruit(worker.engines)
                world.announce(*population)

    for tiers in (CHEAP, CHEAP, LARGE, LARGE):
        recruit(tiers)
    router = world.router(*population, max_running=8, max_queued=100, max_failures=50)
    specs = [spec(f"s{i}", PLANS[i % 3], seed=i, prompt=range(1, 30)) for i in range(30)]
    tasks = [asyncio.create_task(answer(router, session)) for session in specs]
    for task in tasks[::5]:
        await one_pass()
        task.cancel()
    seen = await in_time(world.time, *tasks)
    for i, session in enumerate(specs):
        if i % 5:
            assert seen[i] == plain(session)
    assert len(world.workers) > 4
