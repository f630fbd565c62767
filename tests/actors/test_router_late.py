"""Laws of late and failing steps: another worker is asked in time, late answers are stale, and
no token depends on any of it."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from actors.messages import StepRequest
from policies.deadline import DeadlineSettings
from policies.vocabulary import Plan
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    OFF,
    PLANS,
    FakeWorker,
    Refused,
    World,
    answer,
    failing,
    in_time,
    one_pass,
    plain,
    spec,
    until,
)
from tests.actors.test_router_balance import measured, served

ALL = (*CHEAP, *LARGE)


async def hung(world: World, plan: Plan, layout=LARGE, **settings):
    """Two workers of a kind, one of which holds a step of one session."""
    a, b = world.worker("a", layout), world.worker("b", layout)
    a.busy_s = b.busy_s = 0.1
    router = world.router(a, b, **settings)
    await measured(world, router, a, b)
    specs = [spec(f"s{i}", plan, seed=i, max_tokens=60) for i in range(4)]
    tasks = [asyncio.create_task(answer(router, session)) for session in specs]
    await until(lambda: served(a) & {session.session_id for session in specs})
    a.go.clear()
    await until(lambda: a.in_flight and not b.in_flight)
    return router, a, b, specs, tasks


def pass_deadline(world: World) -> None:
    """And the moment after it in which a reply may still be taken in."""
    world.time.advance(3.0)
    world.time.advance(1.0)


@pytest.mark.parametrize("layout", [LARGE, ALL], ids=["full", "all tiers"])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
async def test_a_late_step_is_asked_of_another_worker_and_its_answer_is_stale(
    world: World, plan: Plan, layout
):
    router, a, b, specs, tasks = await hung(world, plan, layout)
    moved = served(a) & {session.session_id for session in specs}
    assert moved - served(b)
    pass_deadline(world)
    assert await asyncio.gather(*tasks) == [plain(session) for session in specs]
    assert moved <= served(b)
    a.go.set()
    await until(lambda: router.idle)
    router.look()
    assert router.status()["pools"]["fake"]["late_steps"] >= 1
    assert [w["late"] for w in router.status()["workers"]] == [0, 0]
    # The worker that was late is one again.
    assert await answer(router, spec("after", plan)) == plain(spec("after"))


async def test_a_late_answer_finds_its_session_elsewhere_in_any_state(world: World):
    """The reply of the former worker comes while the other one computes the same step."""
    _, a, b, specs, tasks = await hung(world, OFF)
    b.go.clear()
    pass_deadline(world)
    await until(lambda: b.in_flight)
    a.go.set()
    await until(lambda: a.in_flight == 0)
    await one_pass()
    assert not any(task.done() for task in tasks)
    b.go.set()
    assert await asyncio.gather(*tasks) == [plain(session) for session in specs]


async def test_without_another_worker_a_slow_step_is_waited_for(world: World):
    large = world.worker("large", LARGE)
    large.busy_s = 0.1
    router = world.router(large)
    await measured(world, router, large)
    large.go.clear()
    task = asyncio.create_task(answer(router, spec("s")))
    await until(lambda: large.in_flight)
    world.time.advance(200.0)
    await one_pass()
    assert len(router.status()["workers"]) == 1
    large.go.set()
    assert await task == plain(spec("s"))


async def test_deadlines_can_be_switched_off(world: World):
    _, a, b, specs, tasks = await hung(world, OFF, deadline=None)
    world.time.advance(200.0)
    for _ in range(20):
        await one_pass()
    assert a.in_flight
    assert not b.in_flight
    a.go.set()
    assert await asyncio.gather(*tasks) == [plain(session) for session in specs]


async def test_two_late_workers_pass_a_session_on_ever_more_seldom(world: World):
    _, a, b, specs, tasks = await hung(world, OFF)
    b.go.clear()
    begin, asked = world.time.now_s, []
    steps = {worker: len(worker.work) for worker in (a, b)}
    for _ in range(200):
        world.time.advance(0.5)
        for _ in range(5):
            await one_pass()
        for worker in (a, b):
            if len(worker.work) > steps[worker]:
                steps[worker] = len(worker.work)
                asked.append(world.time.now_s - begin)
    # The first worker is late, the second one takes over; with both late nobody is better.
    assert len(asked) == 1
    a.go.set()
    b.go.set()
    assert await asyncio.gather(*tasks) == [plain(session) for session in specs]


@pytest.mark.parametrize("seed", range(6))
async def test_workers_that_stall_at_random_cost_no_byte(world: World, seed: int):
    rng = random.Random(seed)
    workers = [world.worker(f"cheap{i}", CHEAP) for i in range(2)]
    workers += [world.worker(f"large{i}", LARGE) for i in range(3)]
    workers += [world.worker("all", ALL)]
    for worker in workers:
        worker.busy_s = 0.05
    router = world.router(*workers, max_running=12)
    await measured(world, router, *workers)
    specs = [spec(f"s{i}", PLANS[i % 3], seed=i, max_tokens=80) for i in range(24)]
    tasks = [asyncio.create_task(answer(router, session)) for session in specs]

    def toggle(worker: FakeWorker) -> None:
        worker.go.clear() if rng.random() < 0.4 else worker.go.set()

    for _ in range(3_000):
        if all(task.done() for task in tasks):
            break
        toggle(rng.choice(workers))
        world.time.advance(rng.choice([0.0, 0.1, 1.0]))
        if rng.random() < 0.2:
            router.look()
        for _ in range(5):
            await one_pass()
    for worker in workers:
        worker.go.set()
    assert await asyncio.gather(*tasks) == [plain(session) for session in specs]
    await until(lambda: router.idle)
    assert sum(pool["late_steps"] for pool in router.status()["pools"].values()) > 0


async def test_retries_of_a_failed_step_back_off(world: World):
    large = world.worker("large", LARGE)
    deadline = DeadlineSettings(backoff_s=1.0)
    router = world.router(large, max_failures=4, deadline=deadline)
    tried: list[float] = []

    def fail(request: StepRequest) -> None:
        if request.items:
            tried.append(world.time.now_s)
            raise RuntimeError("out of memory")

    large.before_step = fail
    [refused] = await in_time(world.time, answer(router, spec("s")))
    assert isinstance(refused, Refused)
    gaps = [b - a for a, b in itertools.pairwise(tried)]
    assert gaps == pytest.approx([1.0, 2.0, 4.0], abs=0.1)


async def test_a_session_whose_step_failed_tries_another_worker(world: World):
    a, b = world.worker("a", LARGE), world.worker("b", LARGE)
    a.before_step = failing(RuntimeError("out of memory"), session_id="s")
    router = world.router(a, b, max_failures=2)
    assert await in_time(world.time, answer(router, spec("s"))) == [plain(spec("s"))]
    assert "s" in served(a)
    assert "s" in served(b)


async def test_a_client_that_leaves_while_its_step_waits_to_be_retried(world: World):
    large = world.worker("large", LARGE)
    large.before_step = failing(RuntimeError("out of memory"), times=1)
    router = world.router(large)
    task = asyncio.create_task(answer(router, spec("s")))
    await until(lambda: large.work and not router.status()["steps_in_flight"])
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: router.idle)
    assert world.time.pending == 0


async def test_a_worker_that_is_lost_while_a_retry_waits_leaves_one_timer(world: World):
    large = world.worker("large", LARGE)
    large.before_step = failing(RuntimeError("out of memory"), times=1)
    router = world.router(large, worker_wait_s=60.0)
    task = asyncio.create_task(answer(router, spec("s")))
    await until(lambda: large.work and not router.status()["steps_in_flight"])
    world.excused.append(large)
    world.announce()
    assert world.time.pending == 1
    world.time.advance(30.0)
    await one_pass()
    assert world.time.pending == 1
    world.announce(world.worker("next", LARGE))
    assert world.time.pending == 0
    assert await task == plain(spec("s"))


async def test_a_router_that_was_held_up_itself_blames_no_worker(world: World):
    """Its timers are due before it has taken in the replies that are there."""
    router, a, _, specs, tasks = await hung(world, OFF)
    asked = len(a.work)
    world.time.advance(100.0)
    a.go.set()
    await until(lambda: len(a.work) > asked)
    world.time.advance(1.0)
    assert await asyncio.gather(*tasks) == [plain(session) for session in specs]
    router.look()
    assert router.status()["pools"]["fake"]["late_steps"] == 0
    assert router.status()["pools"]["fake"]["moved_sessions"] == 0
