"""Laws of failover: whatever routers are lost and when, a client gets each token of the
undisturbed answer once, or a clear end within the bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from actors.ingress.errors import Overloaded, Unavailable
from actors.ingress.failover import Failover, RouterLost
from actors.liveness import FailoverSettings
from actors.messages import GenerateRequest, Output, Refusal
from actors.router import Router
from policies.vocabulary import Commit, Counters, SessionSpec
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    OFF,
    PLANS,
    Answer,
    World,
    one_pass,
    plain,
    spec,
    until,
)

SETTINGS = FailoverSettings(silence_s=10.0, wait_s=60.0, max_lost=3, first_backoff_s=0.25)
PASSES = 300
Fault = Callable[[int], object]


@dataclass
class Routers:
    """Asks one router after another. `faults`, one a request: called with the number of each of
    its batches, may raise; "hang" as its result says no more."""

    routers: list[Router]
    faults: list[Fault] = field(default_factory=list)
    asked: list[GenerateRequest] = field(default_factory=list)

    async def ask(self, request: GenerateRequest) -> AsyncGenerator[list[Output], None]:
        number = len(self.asked)
        self.asked.append(request)
        fault = self.faults[number] if number < len(self.faults) else lambda count: None
        if fault(0) == "hang":
            await asyncio.Event().wait()
        router = self.routers[number % len(self.routers)]
        count = 0
        async with aclosing(router.generate(request)) as batches:
            async for batch in batches:
                count += 1
                yield batch
                if fault(count) == "hang":
                    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
async def _timeouts_by_hand(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "call_at", world.time.call_at)


def dies(at: int) -> Fault:
    """After so many batches."""

    def fault(count: int) -> None:
        if count == at:
            raise RouterLost("killed")

    return fault


def hangs(at: int) -> Fault:
    return lambda count: "hang" if count == at else None


def routers_of(world: World, count: int = 2, **settings: int) -> list[Router]:
    workers = [world.worker("cheap", CHEAP), world.worker("large", LARGE)]
    return [world.router(*workers, decode_tokens=2, **settings) for _ in range(count)]


async def served(failover: Failover, *specs: SessionSpec) -> list[Answer]:
    """One request, read to its end."""
    seen = [Answer() for _ in specs]
    request = GenerateRequest(specs[0].session_id, specs)
    async with aclosing(failover.generate(request)) as commits:
        async for index, commit in commits:
            seen[index].take(commit)
    return seen


async def passed(world: World) -> None:
    """Let everything run that waits for nothing but time, then let some pass."""
    for _ in range(PASSES):
        await one_pass()
    world.time.advance(SETTINGS.first_backoff_s)


async def driven(world: World, task: asyncio.Task[list[Answer]]) -> list[Answer]:
    """Its result, with time moving whenever it waits for nothing else."""
    while not task.done():
        await passed(world)
    return await task


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
@pytest.mark.parametrize("at", [0, 1, 2, 5])
@pytest.mark.parametrize("fault", [dies, hangs])
async def test_lost_router_costs_no_byte(world: World, fault, at: int, plan):
    routers = Routers(routers_of(world), [fault(at)])
    failover = Failover(routers.ask, SETTINGS, world.time)
    specs = [spec(f"s{i}", plan, seed=i, max_tokens=8 + 8 * i) for i in range(3)]
    seen = await driven(world, asyncio.create_task(served(failover, *specs)))
    assert [answer.tokens for answer in seen] == [plain(s) for s in specs]
    assert len(routers.asked) == 2


async def test_next_router_is_told_what_the_client_has_and_only_of_what_is_left(world: World):
    short, long = spec("short", max_tokens=1), spec("long", seed=1, max_tokens=20)
    routers = Routers(routers_of(world), [dies(3)])
    failover = Failover(routers.ask, SETTINGS, world.time)
    seen = await driven(world, asyncio.create_task(served(failover, short, long)))
    assert [answer.tokens for answer in seen] == [plain(short), plain(long)]
    [again] = routers.asked[1].sessions
    known = len(again.tokens) - len(long.tokens)
    assert 0 < known < 20
    assert again.tokens == (*long.tokens, *plain(long)[:known])
    assert again.session_id != long.session_id
    assert (again.sampling, again.max_tokens) == (long.sampling, long.max_tokens)


async def test_costs_of_all_parts_are_added_up(world: World):
    session = spec("s", OFF, max_tokens=24)
    routers = Routers(routers_of(world), [dies(2), dies(3)])
    failover = Failover(routers.ask, SETTINGS, world.time)
    [seen] = await driven(world, asyncio.create_task(served(failover, session)))
    assert seen.commits[-1].counters.from_full == 24
    rounds = [commit.counters.rounds for commit in seen.commits]
    assert rounds == sorted(rounds)


async def test_request_that_outlives_router_after_router_ends(world: World):
    """It may be what kills them."""
    routers = Routers(routers_of(world), [dies(1)] * 10)
    failover = Failover(routers.ask, SETTINGS, world.time)
    with pytest.raises(Unavailable, match="lost its router 4 times"):
        await driven(world, asyncio.create_task(served(failover, spec("s"))))
    assert len(routers.asked) == SETTINGS.max_lost + 1


@pytest.mark.parametrize("begun", [0, 2])
async def test_without_a_router_the_wait_is_bounded_and_tries_back_off(world: World, begun: int):
    faults = [dies(begun), *[dies(0)] * 100]
    routers = Routers(routers_of(world), faults)
    failover = Failover(routers.ask, SETTINGS, world.time)
    with pytest.raises(Unavailable, match="for 60 s"):
        await driven(world, asyncio.create_task(served(failover, spec("s"))))
    assert 50 < world.time.now_s <= 60
    assert len(routers.asked) < 15


async def test_full_routers_turn_away_what_is_new_but_not_what_has_begun(world: World):
    begun, new = spec("begun", max_tokens=12), spec("new")
    routers = routers_of(world, max_running=1, max_queued=0)
    busy = spec("busy", seed=3, max_tokens=400)
    hold = routers[1].generate(GenerateRequest("busy", (busy,)))
    await anext(hold)
    asked = Routers(routers, [dies(1)])
    failover = Failover(asked.ask, SETTINGS, world.time)
    with pytest.raises(Overloaded):
        await served(Failover(Routers(routers[1:]).ask, SETTINGS, world.time), new)
    task = asyncio.create_task(served(failover, begun))
    await passed(world)
    await until(lambda: len(asked.asked) == 2)
    await hold.aclose()
    [seen] = await driven(world, task)
    assert seen.tokens == plain(begun)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("overloaded", Overloaded), ("unavailable", Unavailable), ("internal", RuntimeError)],
)
async def test_refusal_is_told_after_what_came_with_it(kind, error):
    commit = Commit((7,), (), Counters(), OFF)

    async def ask(request: GenerateRequest) -> AsyncGenerator[list[Output], None]:
        yield [(0, commit), Refusal(kind, "no", 1.0)]

    failover = Failover(ask, SETTINGS)
    commits = failover.generate(GenerateRequest("r", (spec("s"),)))
    assert await anext(commits) == (0, commit)
    with pytest.raises(error):
        await anext(commits)


async def test_client_that_leaves_cancels_on_the_router_that_is_asked_now(world: World):
    routers = Routers(routers_of(world), [dies(1)])
    failover = Failover(routers.ask, SETTINGS, world.time)
    commits = failover.generate(GenerateRequest("r", (spec("s", max_tokens=400),)))
    await anext(commits)
    going_on = asyncio.create_task(anext(commits))
    await passed(world)
    await going_on
    assert len(routers.asked) == 2
    await commits.aclose()
