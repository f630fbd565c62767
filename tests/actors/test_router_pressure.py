"""Laws of pressure at the router: busy pools are seen, priced and avoided, and no token
depends on it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest

from actors.lookup import Lookup
from infra.probe.sample import HostSample, ProbeSample
from policies.pressure import Pressure
from policies.vocabulary import PlanKind, Tier
from policies.work import WorkKind
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    THREE_TIER,
    TWO_TIER,
    FakeWorker,
    World,
    answer,
    plain,
    spec,
    until,
)
from tests.actors.test_router_auto import auto

ALL = (*CHEAP, *LARGE)
BUSY = ProbeSample("host", "", HostSample(step_busy_frac=0.95), util_mean_frac=0.95)
FORWARD_S = {Tier.DRAFT: 0.01, Tier.SLIM: 0.05, Tier.FULL: 0.2}


def told(router) -> list[dict[Tier, Pressure]]:
    """What the planner is told from now on."""
    seen: list[dict[Tier, Pressure]] = []
    under = router._planner.under
    router._planner.under = lambda pressure: seen.append(dict(pressure)) or under(pressure)
    return seen


def fleet(world: World, cheap_slots: int = 64) -> tuple[FakeWorker, FakeWorker]:
    cheap, large = world.worker("c", CHEAP, slots=cheap_slots), world.worker("l", LARGE)
    cheap.pool, large.pool = "cheap", "large"
    for worker in (cheap, large):
        worker.forward_s = FORWARD_S
        for tier, engine in worker.engines.items():
            engine._agreement = 0.9 if tier is Tier.DRAFT else 1.0
    return cheap, large


def heated(world: World, cheap: FakeWorker, router) -> None:
    """From now on each step of the cheap worker takes its time, and others wait for it."""
    cheap.probe = BUSY

    def pass_time(request) -> None:
        if request.items:
            world.time.advance(1.0)
            world.announce(*world.workers, router=router)
            router.look()

    cheap.before_step = pass_time
    cheap.busy_s = 1.0


async def drafted(router, name: str, sessions: int, max_tokens: int = 120) -> Counter[PlanKind]:
    """Tokens that sessions in mode auto commit, by plan; they are those of plain decoding."""
    specs = [auto(f"{name}{i}", i, max_tokens=max_tokens) for i in range(sessions)]
    tasks = [asyncio.create_task(answer(router, session)) for session in specs]
    assert await asyncio.gather(*tasks) == [plain(session) for session in specs]
    return Counter(router.status()["auto"]["rounds"])


async def test_the_look_prices_what_waits_and_only_that(world: World):
    cheap, large = fleet(world, cheap_slots=1)
    router = world.router(cheap, large)
    seen = told(router)
    heated(world, cheap, router)
    specs = [spec(f"s{i}", THREE_TIER, seed=i, max_tokens=60) for i in range(10)]
    found = await asyncio.gather(*(answer(router, session) for session in specs))
    assert found == [plain(session) for session in specs]
    hottest = max(seen, key=lambda pressure: pressure[Tier.DRAFT].price)
    assert hottest[Tier.DRAFT].price == hottest[Tier.SLIM].price > 2
    assert hottest[Tier.DRAFT].crowd < 1.0  # one session a step, of ten
    assert max(pressure[Tier.FULL].price for pressure in seen) < hottest[Tier.DRAFT].price
    pools = router.status()["pools"]
    assert pools["cheap"]["price"] > 1
    assert pools["cheap"]["queue_s"] > 1
    assert pools["cheap"]["util_frac"] == 0.95
    assert set(pools) == {"cheap", "large"}


async def test_one_worker_of_all_tiers_is_under_no_pressure_however_hot(world: World):
    worker = world.worker("w", ALL, slots=2)
    worker.forward_s = FORWARD_S
    plans = []
    for balanced in (True, False):
        router = world.router(worker, **({} if balanced else {"pressure": None}))
        seen = told(router)
        heated(world, worker, router)
        plans.append(await drafted(router, f"b{balanced}", sessions=8))
        assert all(pressure == {} for pressure in seen)
        if balanced:
            assert router.status()["pools"]["fake"]["price"] > 1
        assert router.status()["pools"]["fake"]["skipped_proposals"] == 0
        await until(lambda at=router: at.idle)
    assert plans[0] == plans[1]


async def test_sessions_do_not_wait_longer_than_a_block_is_worth(world: World):
    cheap, large = fleet(world, cheap_slots=1)
    router = world.router(cheap, large)
    calm = await drafted(router, "calm", sessions=4, max_tokens=200)
    assert any(taken.startswith(("two_tier", "three_tier")) for taken in calm)
    assert router.status()["pools"] == {}
    heated(world, cheap, router)
    await drafted(router, "hot", sessions=12)
    assert router.status()["pools"]["cheap"]["skipped_proposals"] > 0


@pytest.mark.parametrize("plan", [TWO_TIER, THREE_TIER], ids=lambda plan: plan.kind)
async def test_a_session_that_asks_for_a_plan_waits_for_it(world: World, plan):
    cheap, large = fleet(world, cheap_slots=1)
    router = world.router(cheap, large)
    heated(world, cheap, router)
    specs = [spec(f"s{i}", plan, seed=i, max_tokens=40) for i in range(8)]
    found = await asyncio.gather(*(answer(router, session) for session in specs))
    assert found == [plain(session) for session in specs]
    assert router.status()["pools"]["cheap"]["skipped_proposals"] == 0


async def test_the_plan_leaves_a_slow_cheap_pool_and_comes_back_when_it_is_quick_again(world):
    cheap, large = fleet(world)
    router = world.router(cheap, large)
    in_force = ["off"]

    async def play_until(name: str, done, sessions: int = 4) -> None:
        for number in range(300):
            await drafted(router, f"{name}{number}-", sessions)
            world.time.advance(1.0)
            router.look()
            in_force.append(router.status()["auto"]["in_force"])
            if done(in_force[-1]):
                return
        raise AssertionError(in_force)

    await play_until("quick", lambda plan: plan != "off")
    cheap.forward_s = {tier: 40 * seconds for tier, seconds in FORWARD_S.items()}
    await play_until("slow", lambda plan: plan == "off")
    cheap.forward_s = FORWARD_S
    await play_until("again", lambda plan: plan != "off")
    assert sum(a != b for a, b in itertools.pairwise(in_force)) == 3


async def test_a_crowd_before_the_cheap_pool_moves_work_to_the_large_one_and_back(world: World):
    cheap, large = fleet(world, cheap_slots=1)
    router = world.router(cheap, large)
    await drafted(router, "calm", sessions=4, max_tokens=200)

    async def share(name: str, sessions: int) -> float:
        """Of the proposals that were due, those that were left out."""
        asked, before = len(cheap.work), skipped()
        await drafted(router, name, sessions)
        left_out = skipped() - before
        return left_out / (left_out + len(cheap.work) - asked)

    def skipped() -> int:
        router.look()
        return router.status()["pools"]["cheap"]["skipped_proposals"]

    assert await share("alone", 1) == 0.0
    heated(world, cheap, router)
    assert await share("crowd", 12) > 0.5
    cheap.before_step, cheap.busy_s = (lambda request: None), 0.0
    for number in range(60):
        world.time.advance(10.0)
        await share(f"again{number}", 1)
    assert await share("calm again", 1) == 0.0
    assert router.status()["pools"]["cheap"]["price"] == 1.0


async def test_prompt_lookup_stands_in_for_a_busy_draft(world: World):
    cheap, large = fleet(world, cheap_slots=1)
    router = world.router(cheap, large, spare=Lookup(longest=4, shortest=1))
    await drafted(router, "calm", sessions=4, max_tokens=200)
    heated(world, cheap, router)
    before = len(large.requests)
    await drafted(router, "hot", sessions=12, max_tokens=200)
    skipped = router.status()["pools"]["cheap"]["skipped_proposals"]
    assert skipped > 0
    verified = [i for r in large.requests[before:] for i in r.items if i.kind is WorkKind.VERIFY]
    proposed = [i for r in cheap.requests for i in r.items if i.kind is WorkKind.PROPOSE]
    known = {(item.session_id, item.start) for item in proposed}
    assert [item for item in verified if (item.session_id, item.start) not in known]
