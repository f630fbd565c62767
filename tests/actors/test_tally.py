"""Laws of a router's plain numbers: they are what its sessions' answers say, each counted once."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import fields

import pytest

from actors.messages import GenerateRequest
from policies.audit import AuditSettings
from policies.counting import together
from policies.gates import Gate, GateKind
from policies.vocabulary import Counters, Plan, PlanKind
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    OFF,
    THREE_TIER,
    TWO_TIER,
    World,
    answer,
    answers,
    spec,
    until,
)

VIA = Plan(PlanKind.VIA, gamma=3, block=6, gate=Gate(GateKind.RATIO, 0.6, 0.3))
ONE = (*CHEAP, *LARGE)


@pytest.mark.parametrize("plan", [OFF, TWO_TIER, THREE_TIER, VIA], ids=lambda plan: plan.kind)
@pytest.mark.parametrize("layout", [(CHEAP, LARGE), (ONE,)], ids=["two", "one"])
async def test_what_is_counted_is_what_the_answers_say(world: World, plan: Plan, layout):
    workers = [world.worker(f"w{i}", tiers) for i, tiers in enumerate(layout)]
    router = world.router(*workers)
    seen = await answers(router, *(spec(f"s{i}", plan, seed=i, max_tokens=40) for i in range(3)))
    await until(lambda: router.idle)
    total = Counters()
    for each in seen:
        total = together(total, each.commits[-1].counters)
    tally = router.tally()
    told = tally.costs[plan.kind.value]
    # A look in the background may come after the last commit.
    assert told.audit_rows >= total.audit_rows
    for field in fields(Counters):
        if not field.name.startswith("audit_"):
            assert getattr(told, field.name) == getattr(total, field.name), field.name
    assert sum(map(len, tally.take_waits_s().values())) == 3
    assert tally.take_waits_s() == {}


@pytest.mark.parametrize("plan", [TWO_TIER, THREE_TIER], ids=lambda plan: plan.kind)
async def test_a_block_of_an_exact_round_is_kept_up_to_its_first_rejection(world: World, plan):
    router = world.router(world.worker("cheap", CHEAP), world.worker("large", LARGE))
    # A stop or the last token would cut what a block commits.
    [seen] = await answers(router, spec("s", plan, max_tokens=61))
    tally = router.tally()
    counters = seen.commits[-1].counters
    drafted = counters.from_draft + counters.from_slim
    kept = sum(count * kept for (_, _, kept), count in tally.blocks.items())
    assert kept - plan.block_len <= drafted <= kept
    assert sum(tally.blocks.values()) <= counters.rounds
    if plan is THREE_TIER:
        judged = sum(tally.screened.values())
        assert judged == counters.draft_judged
        assert tally.screened[plan.kind.value, "escalate"] == 0
    else:
        assert sum(min(k + 1, b) * n for (_, b, k), n in tally.blocks.items()) == (
            counters.draft_judged
        )


async def test_the_gate_of_via_is_counted_by_its_three_ways(world: World):
    router = world.router(world.worker("cheap", CHEAP), world.worker("large", LARGE))
    [seen] = await answers(router, spec("s", VIA, max_tokens=60))
    screened = router.tally().screened
    counters = seen.commits[-1].counters
    passed = screened["via", "accept"] + screened["via", "regenerate"]
    assert passed >= counters.unseen > 0
    assert screened["via", "escalate"] > 0
    assert sum(router.tally().blocks.values()) > 0


async def test_a_session_is_counted_while_it_runs_and_once(world: World):
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    router = world.router(cheap, large)
    request = GenerateRequest("s", (spec("s", OFF, max_tokens=1000),))
    async with aclosing(router.generate(request)) as outputs:
        await anext(outputs)
        first = router.tally().costs["off"].from_full
        assert first > 0
        assert router.tally().costs["off"].from_full == first
    await until(lambda: router.idle)
    assert router.tally().costs["off"].from_full >= first


async def test_seconds_are_by_pool_and_tier(world: World):
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    cheap.pool, large.pool = "cheap", "large"
    cheap.forward_s = dict.fromkeys(CHEAP, 0.5)
    large.forward_s = dict.fromkeys(LARGE, 2.0)
    router = world.router(cheap, large)
    await answer(router, spec("s", THREE_TIER))
    busy_s = router.tally().busy_s
    assert set(busy_s) == {("cheap", "draft"), ("cheap", "slim"), ("large", "full")}
    assert sum(busy_s.values()) == pytest.approx(
        sum(lane["busy_s"] for lane in router.status()["workers"])
    )


async def test_the_rows_that_routers_report_add_up_to_the_books(world: World):
    world.audit_settings = AuditSettings(sample_prob=1.0, min_rows=100_000, proof_rows=100_000)
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    routers = [world.router(cheap, large)]
    routers.append(world.router())
    world.announce(cheap, large, router=routers[1])
    both = [answer(r, spec(f"s{i}", VIA, seed=i)) for i, r in enumerate(routers)]
    await asyncio.gather(*both)
    await until(lambda: all(router.idle for router in routers))
    rows = [router._auditor.reported.sampled.rows for router in routers]
    assert min(rows) > 0
    assert sum(rows) == world.audit_state.sampled.rows
