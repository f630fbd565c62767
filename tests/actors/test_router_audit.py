"""Laws of the audit at the router: looks wait for room, miss nothing, and close a bad gate."""

from __future__ import annotations

import asyncio

import pytest

from policies.audit import AuditSettings
from policies.gates import Gate, GateKind
from policies.vocabulary import Plan, PlanKind
from policies.work import WorkKind
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    OFF,
    World,
    answer,
    answers,
    failing,
    in_time,
    plain,
    spec,
    until,
)

# Lets everything through that slim gives any chance at all.
LAX = Plan(PlanKind.VIA, gamma=3, block=6, gate=Gate(GateKind.RATIO, 1e-6, 0.0))
UNDECIDED = AuditSettings(sample_prob=1.0, min_rows=100_000, proof_rows=100_000)


def looks(worker) -> list:
    return [item for r in worker.requests for item in r.items if item.kind is WorkKind.AUDIT]


async def test_every_drawn_token_of_an_answer_is_audited_by_its_end(world: World):
    world.audit_settings = UNDECIDED
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    router = world.router(cheap, large)
    [seen] = await answers(router, spec("s", LAX, max_tokens=60))
    unseen = seen.commits[-1].counters.unseen
    assert unseen > 20
    await until(lambda: router.idle)
    assert world.audit_state.sampled.rows == unseen
    # Full has scored every token once: on its way, or in a look that is counted apart.
    told = seen.commits[-1].counters
    assert told.full_rows + told.audit_rows >= len(seen.tokens)
    assert told.audit_rows == sum(item.num_audit for item in looks(large))
    assert 0 < world.audit_state.sampled.disagreements < unseen
    assert looks(large)


async def test_a_look_waits_while_the_full_worker_has_other_work(world: World):
    world.audit_settings = AuditSettings(sample_prob=1.0)
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    router = world.router(cheap, large, decode_tokens=1)
    busy = asyncio.create_task(answer(router, spec("busy", OFF, max_tokens=400)))
    await until(lambda: large.work)
    await answer(router, spec("s", LAX, seed=1, max_tokens=40))
    assert not busy.done()
    assert looks(large) == []
    assert await busy == plain(spec("busy", max_tokens=400))
    await answer(router, spec("alone", LAX, seed=1, max_tokens=40))
    assert looks(large)


async def test_a_bad_slim_closes_the_gate_and_then_every_token_is_fulls(world: World):
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    cheap.engines[CHEAP[1]]._agreement = 0.0
    router = world.router(cheap, large)
    committed = 0
    while world.audit_state.level < world.audit_settings.levels:
        answered = await answers(router, spec(f"s{committed}", LAX, seed=committed, max_tokens=50))
        committed += len(answered[0].tokens)
        await until(lambda: router.idle)
        assert committed < 2_000
    [seen] = await answers(router, spec("last", LAX, seed=99, max_tokens=50))
    assert seen.tokens == plain(spec("last", seed=99, max_tokens=50))
    last = seen.commits[-1]
    assert last.counters.unseen == 0
    assert last.audit is not None
    assert (last.audit.level, last.audit.levels) == (4, 4)


async def test_behind_the_closed_gate_a_good_slim_opens_it_again(world: World):
    world.audit_settings = AuditSettings(relax_rows=60, relax_fraction=1.0, epsilon=0.2)
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    cheap.engines[CHEAP[0]]._agreement = cheap.engines[CHEAP[1]]._agreement = 0.0
    router = world.router(cheap, large)
    for number in range(400):
        await answer(router, spec(f"s{number}", LAX, seed=number, max_tokens=50))
        await until(lambda: router.idle)
        if world.audit_state.level == 4:
            cheap.engines[CHEAP[0]]._agreement = cheap.engines[CHEAP[1]]._agreement = 1.0
        elif world.audit_state.relaxed:
            return
    raise AssertionError(world.audit_state)


@pytest.mark.parametrize("victim", ["cheap", "large"])
async def test_failed_looks_and_lost_workers_cost_looks_and_nothing_else(world: World, victim):
    world.audit_settings = UNDECIDED
    workers = {"cheap": world.worker("cheap", CHEAP), "large": world.worker("large", LARGE)}
    router = world.router(*workers.values())
    quiet = await answer(router, spec("a", LAX, max_tokens=60))
    await until(lambda: router.idle)
    workers[victim].before_step = failing(RuntimeError("out of memory"), times=2, session_id="b")
    assert await in_time(world.time, answer(router, spec("b", LAX, max_tokens=60))) == [quiet]
    await until(lambda: router.idle)
    world.kill(workers["large"])
    task = asyncio.create_task(answer(router, spec("c", LAX, max_tokens=60)))
    await until(lambda: router.status()["running"] and len(router.status()["workers"]) < 2)
    world.announce(workers["cheap"], world.worker("next", LARGE))
    assert await task == quiet


async def test_a_client_that_leaves_takes_its_looks_along(world: World):
    world.audit_settings = AuditSettings(sample_prob=1.0)
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    router = world.router(cheap, large)
    for moment in (3, 9, 20, 40):
        task = asyncio.create_task(answer(router, spec(f"s{moment}", LAX, max_tokens=400)))
        await until(lambda at=moment: len(cheap.requests) >= at)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: router.idle)
        assert (cheap.holds, large.holds) == ({}, {})
