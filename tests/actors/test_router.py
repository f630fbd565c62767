"""Laws of the router: the bytes of plain decoding, in shared steps, within its bounds."""

from __future__ import annotations

import asyncio

import pytest

from policies.vocabulary import FinishReason, Plan, PlanKind
from policies.work import WorkKind
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    OFF,
    PLANS,
    THREE_TIER,
    Refused,
    World,
    answer,
    answers,
    at_call,
    one_pass,
    plain,
    spec,
    until,
)


@pytest.mark.parametrize(
    "plan",
    [OFF]
    + [Plan(PlanKind.TWO_TIER, gamma) for gamma in (1, 2, 5, 16)]
    + [Plan(PlanKind.THREE_TIER, g, b) for g, b in ((1, 1), (4, 1), (1, 8), (3, 7), (16, 32))],
)
@pytest.mark.parametrize("agreement", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("layout", [(CHEAP, LARGE), ((*CHEAP, *LARGE),)], ids=["two", "one"])
async def test_output_is_plain_decoding(world: World, layout, agreement: float, plan: Plan):
    workers = [world.worker(f"w{i}", tiers) for i, tiers in enumerate(layout)]
    for tier in CHEAP:
        workers[0].engines[tier]._agreement = agreement
    session = spec("s", plan, seed=7, max_tokens=40)
    (seen,) = await answers(world.router(*workers), session)
    assert seen.tokens == plain(session)
    assert seen.finish is FinishReason.LENGTH


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.kind)
@pytest.mark.parametrize("place", range(8))
async def test_stop_id_ends_the_stream_wherever_it_stands_in_a_block(world: World, place, plan):
    endless = plain(spec("s", seed=3, max_tokens=8))
    session = spec("s", plan, seed=3, stop_ids=[endless[place]])
    router = world.router(world.worker("cheap", CHEAP), world.worker("large", LARGE))
    (seen,) = await answers(router, session)
    assert seen.tokens == plain(session) == endless[: endless.index(endless[place]) + 1]
    assert seen.finish is FinishReason.STOP


async def test_status_tells_what_all_sessions_have_cost(world: World):
    router = world.router(world.worker("cheap", CHEAP), world.worker("large", LARGE))
    specs = [spec(f"s{i}", PLANS[i % 3], seed=i, max_tokens=9) for i in range(6)]
    await answers(router, *specs[:3])
    await answers(router, *specs[3:])
    costs = router.status()["costs"]
    tokens = sum(len(plain(session)) for session in specs)
    assert costs["from_draft"] + costs["from_slim"] + costs["from_full"] == tokens
    assert costs["full_rows"] >= costs["full_passes"] > 0


@pytest.mark.parametrize("token_budget", [4, 16, 256])
async def test_concurrent_requests_do_not_touch_each_other(world: World, token_budget: int):
    workers = [world.worker(f"cheap{i}", CHEAP, token_budget=token_budget) for i in range(2)]
    workers += [world.worker(f"large{i}", LARGE, token_budget=token_budget) for i in range(2)]
    router = world.router(*workers, max_running=12, max_queued=100)
    specs = [
        spec(f"s{i}", PLANS[i % 3], seed=i, prompt=range(1, 2 + i), max_tokens=5 + i % 17)
        for i in range(40)
    ]
    seen = await asyncio.gather(*(answer(router, session) for session in specs))
    assert seen == [plain(session) for session in specs]


async def test_choices_of_a_request_are_sessions_of_their_own(world: World):
    router = world.router(world.worker("cheap", CHEAP), world.worker("large", LARGE))
    specs = [spec(f"r-{i}", PLANS[i % 3], seed=i, max_tokens=3 + 5 * i) for i in range(6)]
    seen = await answers(router, *specs)
    assert [one.tokens for one in seen] == [plain(session) for session in specs]


async def test_two_routers_share_workers(world: World):
    workers = [world.worker("cheap", CHEAP), world.worker("large", LARGE)]
    routers = [world.router(*workers) for _ in range(2)]
    specs = [[spec(f"{r}-{i}", THREE_TIER, seed=i) for i in range(6)] for r in "ab"]
    seen = await asyncio.gather(
        *(answer(routers[r], session) for r in range(2) for session in specs[r])
    )
    assert seen == [plain(session) for part in specs for session in part]


async def test_sessions_that_wait_for_one_worker_share_its_call(world: World):
    worker = world.worker("large", LARGE)
    router = world.router(worker, decode_tokens=4)
    specs = [spec(f"s{i}", seed=i, max_tokens=16) for i in range(8)]
    await asyncio.gather(*(answer(router, session) for session in specs))
    # One token, then bursts of four: 1 + 4 + 4 + 4 + 3 of 16.
    assert [len(request.items) for request in worker.work] == [8] * 5


@pytest.mark.parametrize("cap", [1, 2, 3])
@pytest.mark.parametrize("hop_s", [0.0, 1.0])
async def test_in_flight_limit_holds(world: World, cap: int, hop_s: float):
    worker = world.worker("large", LARGE)
    router = world.router(worker, max_in_flight=cap)
    worker.before_step = at_call(1, lambda: world.time.advance(hop_s))
    await answer(router, spec("first", max_tokens=1))
    await until(lambda: router.idle)
    worker.go.clear()
    rest = []
    for i in range(5):
        rest.append(asyncio.create_task(answer(router, spec(f"s{i}", seed=i))))
        await one_pass()
        await one_pass()
    limit = cap if hop_s else 1
    await until(lambda: worker.in_flight == limit)
    worker.go.set()
    await asyncio.gather(*rest)
    assert worker.most_in_flight == limit


async def test_long_prompt_is_computed_in_chunks_between_the_decoding_of_others(world: World):
    worker = world.worker("large", LARGE, token_budget=8)
    router = world.router(worker)
    short = [spec(f"short{i}", seed=i, max_tokens=60) for i in range(2)]
    tasks = [asyncio.create_task(answer(router, session)) for session in short]
    await until(lambda: len(worker.work) == 2)
    long = spec("long", prompt=range(1, 101), max_tokens=4)
    seen = await asyncio.gather(answer(router, long), *tasks)
    assert seen == [plain(session) for session in (long, *short)]
    for request in worker.work:
        assert sum(len(item.tokens) for item in request.items) <= 8
    chunked = [r for r in worker.work if any(i.kind is WorkKind.EXTEND for i in r.items)]
    assert sum(any(i.kind is WorkKind.DECODE for i in r.items) for r in chunked) >= 10


async def test_session_is_released_once_and_never_stepped_afterwards(world: World):
    workers = [world.worker("cheap", CHEAP), world.worker("large", LARGE)]
    router = world.router(*workers)
    await asyncio.gather(*(answer(router, spec(f"s{i}", PLANS[i % 3], seed=i)) for i in range(9)))
    await until(lambda: router.idle)
    for worker in workers:
        released: list[str] = []
        for request in worker.requests:
            released += request.release
            assert not {item.session_id for item in request.items} & set(released)
        assert len(released) == len(set(released))


@pytest.mark.parametrize("num_choices", [1, 3])
async def test_request_past_the_queue_is_refused_whole(world: World, num_choices: int):
    large = world.worker("large", LARGE)
    large.go.clear()
    router = world.router(large, max_running=2, max_queued=3)
    tasks = [asyncio.create_task(answer(router, spec(f"s{i}", seed=i))) for i in range(5)]
    await until(lambda: (s := router.status())["running"] == 2 and s["queued"] == 3)
    with pytest.raises(Refused) as caught:
        await answers(router, *(spec(f"more{i}") for i in range(num_choices)))
    refusal = caught.value.args[0]
    assert refusal.kind == "overloaded"
    assert refusal.retry_after_s > 0
    assert router.status()["queued"] == 3
    large.go.set()
    assert await asyncio.gather(*tasks) == [plain(spec("", seed=i)) for i in range(5)]


async def test_burst_that_fits_running_and_queue_together_is_not_refused(world: World):
    router = world.router(world.worker("large", LARGE), max_running=2, max_queued=2)
    tasks = [asyncio.create_task(answer(router, spec(f"s{i}", seed=i))) for i in range(5)]
    seen = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, Refused) for one in seen] == [False] * 4 + [True]


@pytest.mark.parametrize("max_running", [1, 2])
async def test_first_come_first_served(world: World, max_running: int):
    large = world.worker("large", LARGE)
    router = world.router(large, max_running=max_running)
    await asyncio.gather(*(answer(router, spec(f"s{i}", seed=i)) for i in range(8)))
    order = [item.session_id for request in large.work for item in request.items]
    assert list(dict.fromkeys(order)) == [f"s{i}" for i in range(8)]


async def test_never_more_sessions_run_than_the_bound(world: World):
    workers = [world.worker("cheap", CHEAP), world.worker("large", LARGE)]
    router = world.router(*workers, max_running=3, max_queued=100)
    for worker in workers:
        worker.before_step = lambda request: running.append(router.status()["running"])
    running: list[int] = []
    await asyncio.gather(*(answer(router, spec(f"s{i}", THREE_TIER, seed=i)) for i in range(12)))
    assert max(running) == 3
