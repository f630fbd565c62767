"""Laws of the router: failed steps and missing workers end in a bounded time, for few."""

from __future__ import annotations

import asyncio

import pytest

from actors.messages import GenerateRequest, StepReply
from policies.vocabulary import Plan
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    PLANS,
    THREE_TIER,
    Refused,
    World,
    answer,
    answers,
    failing,
    in_time,
    one_pass,
    plain,
    spec,
    until,
)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
@pytest.mark.parametrize("victim", ["cheap", "large"])
async def test_step_that_fails_less_than_the_bound_costs_no_byte(world: World, victim, plan):
    workers = {"cheap": world.worker("cheap", CHEAP), "large": world.worker("large", LARGE)}
    workers[victim].before_step = failing(RuntimeError("out of memory"), times=2)
    router = world.router(*workers.values(), max_failures=3)
    assert await in_time(world.time, answer(router, spec("s", plan))) == [plain(spec("s"))]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
async def test_session_whose_steps_always_fail_takes_no_other_with_it(world: World, plan: Plan):
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    large.before_step = failing(RuntimeError("bad token"), session_id="bad")
    router = world.router(cheap, large, max_failures=3)
    good = [spec(f"good{i}", plan, seed=i) for i in range(4)]
    tasks = [asyncio.create_task(answer(router, session)) for session in good[:2]]
    bad = asyncio.create_task(answer(router, spec("bad", plan)))
    tasks += [asyncio.create_task(answer(router, session)) for session in good[2:]]
    [refused] = await in_time(world.time, bad)
    assert isinstance(refused, Refused)
    assert refused.args[0].kind == "internal"
    assert await asyncio.gather(*tasks) == [plain(session) for session in good]
    tried = [r for r in large.work if any(i.session_id == "bad" for i in r.items)]
    assert len(tried) == 3


async def test_a_reply_that_cannot_be_taken_in_ends_its_sessions_and_hangs_none(world: World):
    large = world.worker("large", LARGE)
    router = world.router(large)
    whole, large.step = large.step, lambda request: silent()

    async def silent() -> StepReply:
        return StepReply((), 0.0)

    with pytest.raises(Refused) as caught:
        await answers(router, spec("r-0"), spec("r-1", seed=1))
    assert caught.value.args[0].kind == "internal"
    large.step = whole
    assert await answer(router, spec("after")) == plain(spec("after"))


async def test_refusal_of_one_choice_ends_the_request(world: World):
    large = world.worker("large", LARGE)
    large.before_step = failing(RuntimeError("bad token"), session_id="r-1")
    router = world.router(large)
    specs = [spec(f"r-{i}", seed=i, max_tokens=400) for i in range(3)]
    [refused] = await in_time(world.time, answers(router, *specs))
    assert isinstance(refused, Refused)
    assert refused.args[0].kind == "internal"


async def test_step_without_an_answer_in_time_loses_its_worker(world: World):
    hung, large = world.worker("a-hung", LARGE), world.worker("large", LARGE)
    hung.go.clear()
    world.excused.append(hung)
    router = world.router(hung, large, step_timeout_s=300.0)
    task = asyncio.create_task(answer(router, spec("s")))
    await until(lambda: hung.in_flight)
    world.time.advance(299.0)
    await one_pass()
    assert len(router.status()["workers"]) == 2
    world.time.advance(1.0)
    assert await task == plain(spec("s"))
    assert [w["worker_id"] for w in router.status()["workers"]] == ["large"]


async def test_without_a_full_worker_the_wait_is_bounded(world: World):
    """Also while the registry repeats, every few seconds, that nothing has changed."""
    cheap = world.worker("cheap", CHEAP)
    router = world.router(cheap, worker_wait_s=60.0)
    task = asyncio.create_task(answer(router, spec("s", THREE_TIER)))
    await until(lambda: router.status()["running"] and world.time.pending)
    for _ in range(11):
        world.time.advance(5.0)
        world.announce(cheap)
        await one_pass()
    assert not task.done()
    world.time.advance(5.0)
    with pytest.raises(Refused) as caught:
        await task
    assert caught.value.args[0].kind == "unavailable"


async def test_refusal_that_nobody_reads_frees_its_place(world: World):
    large = world.worker("large", LARGE)
    router = world.router(large, max_running=1, decode_tokens=1)
    unread = router.generate(GenerateRequest("a", (spec("a", max_tokens=400),)))
    await anext(unread)
    task = asyncio.create_task(answer(router, spec("b")))
    await until(lambda: router.status()["queued"] == 1)
    world.excused.append(large)
    world.announce()
    await until(lambda: router.status()["steps_in_flight"] == 0)
    world.time.advance(60.0)
    await until(lambda: router.status()["queued"] == 0)
    world.announce(world.worker("new", LARGE))
    assert await task == plain(spec("b"))
    await unread.aclose()
