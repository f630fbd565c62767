"""Laws of the router's choice of workers: quick ones are preferred, homes kept, and whoever
answers, the tokens are those of plain decoding."""

from __future__ import annotations

import asyncio

import pytest

from policies.vocabulary import Plan, Tier
from policies.work import WorkKind
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    OFF,
    PLANS,
    THREE_TIER,
    TWO_TIER,
    FakeWorker,
    World,
    answer,
    answers,
    plain,
    spec,
    until,
)

ALL = (*CHEAP, *LARGE)


def served(worker: FakeWorker) -> set[str]:
    """The sessions that it was asked about."""
    return {item.session_id for request in worker.requests for item in request.items}


async def measured(world: World, router, *workers: FakeWorker) -> None:
    """Let the router know how long a step of each takes, and be done with it."""
    first = len(world.routers) * 100
    for number in range(8 * len(workers)):
        await answers(router, spec(f"warm{first + number}", seed=number, max_tokens=9))
    pair = [spec(f"pair{first}-{i}", seed=i, max_tokens=40) for i in range(2 * len(workers))]
    await asyncio.gather(*(answer(router, session) for session in pair))
    await until(lambda: router.idle)


async def test_newcomers_go_where_the_answer_comes_first(world: World):
    slow, quick = world.worker("a-slow", LARGE), world.worker("quick", LARGE)
    slow.busy_s, quick.busy_s = 1.0, 0.01
    router = world.router(slow, quick)
    await measured(world, router, slow, quick)
    before = len(slow.work)
    for number in range(6):
        assert await answer(router, spec(f"s{number}", seed=number)) == plain(spec("", seed=number))
    assert len(slow.work) == before


async def test_equal_workers_share_the_sessions_and_nobody_wanders(world: World):
    workers = [world.worker(f"w{i}", LARGE) for i in range(2)]
    for worker in workers:
        worker.busy_s = 0.1
    router = world.router(*workers)
    specs = [spec(f"s{i}", seed=i, max_tokens=60) for i in range(8)]
    tasks = [asyncio.create_task(answer(router, session)) for session in specs]
    await until(lambda: all(len(worker.work) > 4 for worker in workers))
    router.look()
    assert await asyncio.gather(*tasks) == [plain(session) for session in specs]
    assert not served(workers[0]) & served(workers[1])
    assert [len(served(worker)) for worker in workers] == [4, 4]


async def settled_at(world: World, router, worker: FakeWorker, name: str):
    """A long session that lives at this worker."""
    for number in range(50):
        session = spec(f"{name}{number}", seed=number, max_tokens=2_000)
        task = asyncio.create_task(answer(router, session))
        await until(lambda name={session.session_id}: any(served(w) & name for w in world.workers))
        if session.session_id in served(worker):
            return session, task
        task.cancel()
        await asyncio.wait([task])
    raise AssertionError(f"nobody ever goes to {worker.worker_id}")


@pytest.mark.parametrize("moves", [True, False])
async def test_sessions_leave_a_worker_that_became_slow_where_that_pays(world: World, moves: bool):
    a, b = world.worker("a", LARGE), world.worker("b", LARGE)
    a.busy_s = b.busy_s = 0.1
    router = world.router(a, b, moves=moves)
    await measured(world, router, a, b)
    session, task = await settled_at(world, router, a, "long")
    before = len(a.work)
    a.busy_s = 3.0
    await until(lambda: len(a.work) > before + 8)
    router.look()
    await until(lambda: task.done() or session.session_id in served(b))
    assert await task == plain(session)
    assert (session.session_id in served(b)) is moves
    pools = router.status()["pools"]["fake"]
    assert pools["moved_sessions"] == int(moves)
    assert pools["slow_workers"] == 1


async def test_an_avoided_worker_is_tried_again_after_a_while(world: World):
    slow, quick = world.worker("a-slow", LARGE), world.worker("quick", LARGE)
    slow.busy_s, quick.busy_s = 1.0, 0.1
    router = world.router(slow, quick)
    await measured(world, router, slow, quick)
    slow.busy_s = 0.01
    before, looks = len(slow.work), 0
    while len(slow.work) == before:
        for _ in range(10):
            router.look()
        looks += 10
        assert looks < 500
        two = [spec(f"s{looks}-{i}", seed=i) for i in range(2)]
        await asyncio.gather(*(answer(router, session) for session in two))
    assert looks > 10


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
async def test_a_worker_that_hosts_all_tiers_keeps_both_roles_of_its_sessions(world, plan: Plan):
    workers = [world.worker(f"w{i}", ALL) for i in range(2)]
    for worker in workers:
        worker.busy_s = 0.1
    router = world.router(*workers)
    specs = [spec(f"s{i}", plan, seed=i, max_tokens=60) for i in range(6)]
    tasks = [asyncio.create_task(answer(router, session)) for session in specs]
    await until(lambda: sum(len(worker.work) for worker in workers) > 6)
    router.look()
    assert await asyncio.gather(*tasks) == [plain(session) for session in specs]
    assert not served(workers[0]) & served(workers[1])
    kinds = {item.kind for w in workers for r in w.requests for item in r.items}
    assert not kinds & {WorkKind.PROPOSE, WorkKind.VERIFY}


@pytest.mark.parametrize("plan", [TWO_TIER, THREE_TIER], ids=lambda plan: plan.kind)
async def test_rounds_are_played_inside_even_beside_an_idle_cheap_worker(world: World, plan: Plan):
    both, cheap = world.worker("both", ALL), world.worker("cheap", CHEAP)
    both.busy_s, cheap.busy_s = 1.0, 0.001
    router = world.router(both, cheap)
    assert await answer(router, spec("s", plan, max_tokens=60)) == plain(spec("s", max_tokens=60))
    assert cheap.requests == []


async def test_sessions_move_between_workers_of_all_tiers_with_both_roles(world: World):
    a, b = world.worker("a", ALL), world.worker("b", ALL)
    a.busy_s = b.busy_s = 0.1
    router = world.router(a, b)
    await measured(world, router, a, b)
    long = [spec(f"long{i}", THREE_TIER, seed=i, max_tokens=1_500) for i in range(4)]
    tasks = [asyncio.create_task(answer(router, session)) for session in long]
    await until(lambda: len(served(a) & {s.session_id for s in long}) == 2)
    before = len(a.work)
    a.busy_s = 5.0
    await until(lambda: len(a.work) > before + 8)
    router.look()
    assert await asyncio.gather(*tasks) == [plain(session) for session in long]
    assert {session.session_id for session in long} <= served(b)
    status = router.status()
    assert status["pools"]["fake"]["moved_sessions"] >= 1


async def test_a_new_worker_is_taken_to_be_as_quick_as_its_mates(world: World):
    old = world.worker("old", LARGE)
    old.busy_s = 0.5
    router = world.router(old)
    await measured(world, router, old)
    world.announce(old, world.worker("new", LARGE))
    steps = {w["worker_id"]: w["step_s"] for w in router.status()["workers"]}
    assert steps["new"] == pytest.approx(steps["old"])


async def test_full_workers_do_not_wait_for_blocks_that_nobody_makes(world: World):
    """The count of those who propose elsewhere ends at nothing, whatever happens."""
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    router = world.router(cheap, large)
    specs = [spec(f"s{i}", PLANS[i % 3], seed=i, max_tokens=60) for i in range(9)]
    tasks = [asyncio.create_task(answer(router, session)) for session in specs]
    await until(lambda: len(cheap.work) > 2)
    tasks[1].cancel()
    world.kill(cheap)
    seen = await asyncio.gather(*tasks, return_exceptions=True)
    assert [seen[i] for i in (0, 2, 3)] == [plain(specs[i]) for i in (0, 2, 3)]
    await until(lambda: router.idle)
    assert [lane.proposing for lane in router._homes.lanes.values()] == [{}]
    assert {lane.worker_id for lane in router._homes.lanes.values()} == {"large"}
    assert Tier.FULL in router._homes.tiers
    assert router._homes.hosting(frozenset({Tier.DRAFT})) == []
    assert await answer(router, spec("off", OFF)) == plain(spec(""))
