"""Laws of the timeline: it adds up to the answer, in order, whatever plays where or is lost."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import aclosing
from dataclasses import replace

import pytest

from actors.ingress.failover import Failover
from actors.messages import GenerateRequest, Timed
from actors.recorder import MAX_STAGES
from policies.vocabulary import Stage, StageTime, Tier
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    PLANS,
    THREE_TIER,
    TWO_TIER,
    Answer,
    World,
    answers,
    plain,
    spec,
)
from tests.actors.test_failover import SETTINGS, Routers, dies, driven, routers_of

STEP_S = 0.5
FORWARD_S = {Tier.DRAFT: 0.01, Tier.SLIM: 0.03, Tier.FULL: 0.05}
ALL = (*CHEAP, *LARGE)


def working(world: World, name: str, tiers, **report: int):
    """A worker whose steps take STEP_S of the router's time."""
    worker = world.worker(name, tiers, **report)
    worker.before_step = lambda request: world.time.advance(STEP_S) if request.items else None
    worker.forward_s = FORWARD_S
    return worker


async def timed(router, *specs, told: bool = True) -> list[Answer]:
    """The answers to a timed request."""
    seen = [Answer() for _ in specs]
    request = GenerateRequest(specs[0].session_id, specs, Timed(time.time(), told))
    async with asyncio.timeout(20), aclosing(router.generate(request)) as outputs:
        async for batch in outputs:
            for index, commit in batch:
                seen[index].take(commit)
    return seen


def stages_of(answer: Answer) -> list[StageTime]:
    return [stage for commit in answer.commits for stage in commit.stages]


def rows(stages: list[StageTime], *kinds: Stage) -> int:
    return sum(stage.rows for stage in stages if stage.stage in kinds)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
@pytest.mark.parametrize("layout", [(CHEAP, LARGE), (ALL,)], ids=["apart", "together"])
async def test_timeline_adds_up_to_the_answer(world: World, plan, layout):
    workers = [working(world, f"w{i}", tiers) for i, tiers in enumerate(layout)]
    router = world.router(*workers)
    specs = [spec(f"s{i}", plan, seed=i, max_tokens=30) for i in range(2)]
    for asked, answer in zip(specs, await timed(router, *specs), strict=True):
        stages = stages_of(answer)
        counters = answer.commits[-1].counters
        assert answer.tokens == plain(asked)
        assert sum(stage.committed for stage in stages) == len(answer.tokens)
        assert rows(stages, Stage.PROPOSE) == counters.draft_tokens
        assert rows(stages, Stage.SCREEN) == counters.slim_rows
        # The prompt's rows come with the first of full's.
        assert rows(stages, Stage.VERIFY, Stage.DECODE) == counters.full_rows - 1
        assert rows(stages, Stage.PREFILL) == len(asked.tokens)
        assert [s.stage for s in stages][:2] == [Stage.QUEUE, Stage.PREFILL]
        assert [s.round for s in stages] == sorted(s.round for s in stages)
        assert stages[-1].round < counters.rounds
        for before, after in itertools.pairwise(stages):
            assert before.start_s + before.wall_s <= after.start_s + 1e-6
        assert stages[1].batch == 2
        assert {stage.batch for stage in stages[2:]} <= {1, 2}


@pytest.mark.parametrize("layout", [(CHEAP, LARGE), (ALL,)], ids=["apart", "together"])
async def test_a_call_of_several_tiers_is_told_apart_by_what_each_computed(world: World, layout):
    workers = [working(world, f"w{i}", tiers) for i, tiers in enumerate(layout)]
    [answer] = await timed(world.router(*workers), spec("s", THREE_TIER, max_tokens=40))
    stages = stages_of(answer)
    first = next(i for i, stage in enumerate(stages) if stage.stage is Stage.PROPOSE)
    parts = stages[first : first + len(layout[0])]
    assert [part.stage for part in parts] == [Stage.PROPOSE, Stage.SCREEN, Stage.VERIFY][
        : len(parts)
    ]
    assert sum(part.wall_s for part in parts) == pytest.approx(STEP_S)
    for part in parts:
        share = part.busy_s / sum(other.busy_s for other in parts)
        assert part.wall_s == pytest.approx(share * STEP_S)
        assert part.tier is not None
    assert len({part.worker for part in parts}) == 1


async def test_queue_ends_where_the_first_step_begins(world: World):
    worker = working(world, "w", ALL)
    router = world.router(worker, max_running=1)
    first, second = await timed(router, *(spec(f"s{i}", TWO_TIER, seed=i) for i in range(2)))
    waited, prefill = stages_of(second)[:2]
    assert waited.stage is Stage.QUEUE
    assert waited.wall_s == pytest.approx(
        STEP_S * len({s.start_s for s in stages_of(first)[1:]}), rel=0.5
    )
    assert prefill.start_s == pytest.approx(waited.start_s + waited.wall_s)


async def test_long_prompt_is_prefilled_in_chunks_that_show(world: World):
    worker = working(world, "w", ALL, token_budget=16)
    [answer] = await timed(world.router(worker), spec("s", prompt=range(1, 41)))
    prefill = [s for s in stages_of(answer) if s.stage is Stage.PREFILL]
    assert len(prefill) > 2
    assert sum(s.rows for s in prefill) == 40
    assert [s.committed for s in prefill] == [0] * (len(prefill) - 1) + [1]


async def test_nobody_pays_who_does_not_ask(world: World):
    router = world.router(working(world, "w", ALL))
    [answer] = await answers(router, spec("s", TWO_TIER))
    assert stages_of(answer) == []
    [answer] = await timed(router, spec("t", TWO_TIER), told=False)
    assert stages_of(answer) == []


async def test_timeline_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("actors.recorder.MAX_STAGES", 7)
    router = world.router(working(world, "w", ALL), decode_tokens=1)
    [answer] = await timed(router, spec("s", max_tokens=40))
    assert len(stages_of(answer)) == 7
    assert MAX_STAGES == 2_001


async def test_timeline_goes_on_behind_a_lost_router(world: World):
    routers = Routers(routers_of(world), [dies(3)])
    failover = Failover(routers.ask, SETTINGS, world.time)
    asked = spec("s", TWO_TIER, max_tokens=30)
    request = GenerateRequest("s", (asked,), Timed(time.time(), told=True))
    seen = Answer()

    async def served() -> list[Answer]:
        async with aclosing(failover.generate(request)) as commits:
            async for _, commit in commits:
                seen.take(commit)
        return [seen]

    await driven(world, asyncio.create_task(served()))
    stages = stages_of(seen)
    assert seen.tokens == plain(asked)
    assert sum(stage.committed for stage in stages) == len(seen.tokens)
    assert [s.round for s in stages] == sorted(s.round for s in stages)
    assert [s.stage for s in stages].count(Stage.QUEUE) == 2
    assert routers.asked[1].timed == replace(request.timed)
