"""Laws of a session's spans: they tell what its timeline tells, below one span, come what may."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest

from actors.messages import GenerateRequest, Timed
from policies.vocabulary import Stage, Tier
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    PLANS,
    THREE_TIER,
    TWO_TIER,
    Answer,
    World,
    answer,
    at_call,
    plain,
    spec,
    until,
)
from tests.observability.memory import Memory, carrier_of, parent_of

ALL = (*CHEAP, *LARGE)
STAGES = {stage.value for stage in Stage}


def fleet(world: World, memory: Memory, layout) -> list:
    """Traced workers whose steps take half a second of the router's time."""
    workers = [world.worker(f"w{i}", tiers) for i, tiers in enumerate(layout)]
    for worker in workers:
        worker.before_step = lambda request: world.time.advance(0.5) if request.items else None
        worker.forward_s = {Tier.DRAFT: 0.01, Tier.SLIM: 0.03, Tier.FULL: 0.05}
        worker.tracer = memory.tracer("worker")
    return workers


async def traced(router, memory: Memory, *specs, told: bool = True) -> list[Answer]:
    """Each as a request of its own, below a span of its own."""

    async def one(asked) -> Answer:
        seen = Answer()
        above = memory.tracer("ingress").begin("above")
        timed = Timed(time.time(), told, above.carrier)
        request = GenerateRequest(asked.session_id, (asked,), timed)
        async with asyncio.timeout(20), aclosing(router.generate(request)) as outputs:
            async for batch in outputs:
                for _, commit in batch:
                    seen.take(commit)
        above.end()
        return seen

    return await asyncio.gather(*map(one, specs))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
@pytest.mark.parametrize("layout", [(CHEAP, LARGE), (ALL,)], ids=["apart", "together"])
async def test_spans_tell_what_the_timeline_tells(world: World, plan, layout):
    memory = Memory()
    router = world.router(*fleet(world, memory, layout), tracer=memory.tracer("router"))
    asked = spec("s", plan, max_tokens=30)
    [seen] = await traced(router, memory, asked)
    assert seen.tokens == plain(asked)
    stages = [stage for commit in seen.commits for stage in commit.stages]
    told = [span for span in memory.spans if span.name in STAGES]
    assert [span.name for span in told] == [stage.stage.value for stage in stages]
    for span, stage in zip(told, stages, strict=True):
        assert (span.end_time - span.start_time) / 1e9 == pytest.approx(stage.wall_s, abs=1e-4)
        assert span.attributes["viaserve.rows"] == stage.rows
        assert span.attributes["viaserve.round"] == stage.round
    [above], [session] = memory.named("above"), memory.named("session")
    assert parent_of(session, memory.spans) is above
    for span in told:
        below = parent_of(span, memory.spans)
        is_early = span.attributes["viaserve.round"] == 0
        assert below.name == ("session" if is_early else "round")
    for number, span in enumerate(memory.named("round"), start=1):
        assert parent_of(span, memory.spans) is session
        assert span.attributes["viaserve.round"] >= number
        within = [s for s in told if parent_of(s, memory.spans) is span]
        assert within[0].start_time == pytest.approx(span.start_time, abs=1e6)
        assert within[-1].end_time == pytest.approx(span.end_time, abs=1e6)
    counters = seen.commits[-1].counters
    assert session.attributes["viaserve.rounds"] == counters.rounds
    assert session.attributes["viaserve.draft_tokens"] == counters.draft_tokens
    assert session.attributes["viaserve.finish_reason"] == "length"


@pytest.mark.parametrize("layout", [(CHEAP, LARGE), (ALL,)], ids=["apart", "together"])
async def test_steps_are_told_below_each_session_and_link_to_the_others(world: World, layout):
    memory = Memory()
    workers = fleet(world, memory, layout)
    router = world.router(*workers, tracer=memory.tracer("router"))
    await traced(router, memory, *(spec(f"s{i}", THREE_TIER, seed=i) for i in range(3)))
    traces = {span.get_span_context().trace_id for span in memory.named("above")}
    assert len(traces) == 3
    steps = [span for span in memory.spans if span.name.startswith("step ")]
    carriers = {carrier_of(s) for s in memory.named("session", "round")}
    for worker in workers:
        for request in worker.work:
            assert len(request.traces) == len(request.items)
            assert {carrier[:1] for _, carrier in request.traces} <= carriers
    assert len(steps) == sum(len(r.items) for w in workers for r in w.work)
    for span in steps:
        assert parent_of(span, memory.spans).name in ("session", "round")
        assert len(span.links) == span.attributes["viaserve.batch"] - 1
        own = span.get_span_context().trace_id
        assert {link.context.trace_id for link in span.links} <= traces - {own}
    assert any(span.links for span in steps)


async def test_a_step_without_traced_sessions_carries_nothing(world: World):
    memory = Memory()
    [worker] = fleet(world, memory, [ALL])
    router = world.router(worker, tracer=memory.tracer("router"))
    await answer(router, spec("s", TWO_TIER))
    assert [request.traces for request in worker.work if request.traces] == []
    assert list(memory.spans) == []


async def test_spans_of_one_who_leaves_are_ended(world: World):
    memory = Memory()
    [worker] = fleet(world, memory, [ALL])
    router = world.router(worker, tracer=memory.tracer("router"))
    worker.before_step = at_call(3, worker.go.clear)
    task = asyncio.create_task(traced(router, memory, spec("s", TWO_TIER, max_tokens=40)))
    await until(lambda: not worker.go.is_set())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    worker.go.set()
    [session] = memory.named("session")
    assert session.attributes["viaserve.finish_reason"] == "cancelled"
    ids = {span.get_span_context().span_id for span in memory.spans}
    assert {s.parent.span_id for s in memory.named("round", "queue", "prefill")} <= ids


async def test_spans_of_one_session_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("actors.session_trace.MAX_SPANS", 9)
    memory = Memory()
    router = world.router(*fleet(world, memory, [ALL]), tracer=memory.tracer("router"))
    [seen] = await traced(router, memory, spec("s", TWO_TIER, max_tokens=60))
    told = [s for s in memory.spans if s.name in STAGES | {"round"}]
    assert len(told) <= 9
    [session] = memory.named("session")
    assert session.attributes["viaserve.spans_truncated"]
    assert session.attributes["viaserve.rounds"] == seen.commits[-1].counters.rounds
