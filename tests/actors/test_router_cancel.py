"""Laws of the router: a client that leaves leaves nothing; the fixture looks for it."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from actors.messages import GenerateRequest
from policies.vocabulary import Plan
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    PLANS,
    World,
    answer,
    answers,
    one_pass,
    plain,
    spec,
    until,
)


async def test_generator_that_was_never_read_entered_nothing(world: World):
    router = world.router(world.worker("large", LARGE))
    outputs = router.generate(GenerateRequest("s", (spec("s"),)))
    await outputs.aclose()
    assert router.idle


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
@pytest.mark.parametrize("batches", [1, 2, 4])
async def test_closing_between_outputs_leaves_nothing(world: World, batches: int, plan: Plan):
    router = world.router(world.worker("cheap", CHEAP), world.worker("large", LARGE))
    specs = tuple(spec(f"r-{i}", plan, seed=i, max_tokens=400) for i in range(3))
    outputs = router.generate(GenerateRequest("r", specs))
    for _ in range(batches):
        await anext(outputs)
    other = asyncio.create_task(answer(router, spec("other", plan)))
    await outputs.aclose()
    assert await other == plain(spec("other"))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
@pytest.mark.parametrize("hop_s", [0.0, 1.0], ids=["one at a time", "two in flight"])
async def test_cancelling_at_any_moment_leaves_nothing(world: World, hop_s: float, plan: Plan):
    workers = [world.worker("cheap", CHEAP), world.worker("large", LARGE)]
    router = world.router(*workers, max_running=3)
    for worker in workers:
        worker.before_step = lambda request: world.time.advance(hop_s)
    for moment in range(40):
        specs = [spec(f"{moment}-{i}", plan, seed=i, max_tokens=400) for i in range(5)]
        task = asyncio.create_task(answers(router, *specs))
        for _ in range(moment):
            await one_pass()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: router.idle)
        assert [worker.holds for worker in workers] == [{}, {}]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
async def test_no_step_is_made_in_the_context_of_a_request(world: World, plan: Plan):
    """Ray cancels the calls of a cancelled request's context; they carry others' work too."""
    asker = contextvars.ContextVar("asker", default="nobody")
    seen: set[str] = set()
    workers = [world.worker("cheap", CHEAP), world.worker("large", LARGE)]
    router = world.router(*workers)
    for worker in workers:
        worker.before_step = lambda request: seen.add(asker.get())
    await one_pass()  # the announcement's own turn
    asker.set("a request")
    outputs = router.generate(GenerateRequest("s", (spec("s", plan, max_tokens=400),)))
    await anext(outputs)
    await outputs.aclose()
    await until(lambda: router.idle)
    assert seen == {"nobody"}


@pytest.mark.parametrize("where", ["queued", "homeless", "in flight", "in flight at the dead"])
async def test_cancelling_wherever_the_session_waits_leaves_nothing(world: World, where: str):
    large = world.worker("large", LARGE)
    large.go.clear()
    router = world.router(max_running=1)
    first = asyncio.create_task(answer(router, spec("first")))
    task = asyncio.create_task(answer(router, spec("s")))
    await until(lambda: router.status()["queued"] == 1)
    if where != "homeless":
        world.announce(large)
        await until(lambda: large.in_flight)
    victim, other = (task, first) if where == "queued" else (first, task)
    victim.cancel()
    with pytest.raises(asyncio.CancelledError):
        await victim
    if where == "in flight at the dead":
        world.kill(large)
    large.go.set()
    world.announce(world.worker("next", LARGE))
    if not large.dead:
        world.excused.append(large)
    assert await other == plain(spec(""))
