"""Laws of rounds inside one worker: full's choices alone, within bounds, in shared passes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.vocabulary import Plan, PlanKind, Tier
from policies.work import WorkKind
from tests.actors.fakes import CHEAP, LARGE, World, answer, answers, plain, spec
from tests.engine.test_tiers import PROMPT, Host, item

TWO = Plan(PlanKind.TWO_TIER, gamma=3)
THREE = Plan(PlanKind.THREE_TIER, gamma=2, block=5)
ALL = (*CHEAP, *LARGE)


def rounds_of(num: int, rounds: int, plan: Plan = TWO, name: str = "s0", stops=()):
    asked = item(WorkKind.ROUNDS, PROMPT, name=name, num=num, plan=plan, stops=stops)
    return replace(asked, num_rounds=rounds)


@given(
    plan=st.sampled_from([TWO, THREE]),
    num=st.integers(1, 20),
    rounds=st.integers(1, 6),
    draft=st.sampled_from([0.0, 0.6, 1.0]),
    slim=st.sampled_from([0.0, 0.8, 1.0]),
    stops=st.sets(st.integers(0, 49), max_size=8),
)
def test_rounds_commit_what_full_alone_decodes(plan, num, rounds, draft, slim, stops):
    host = Host(draft, slim)
    reply = host.one(rounds_of(num, rounds, plan, stops=stops))
    assert 0 < len(reply.tokens) <= num
    assert len(reply.rounds) <= rounds
    assert reply.tokens == host.decoded(Tier.FULL, PROMPT, len(reply.tokens), stops)
    # It ends for a reason: the rounds, the room or a stop.
    ended = reply.tokens[-1] in stops
    assert len(reply.rounds) == rounds or len(reply.tokens) == num or ended
    assert not any(token in stops for token in reply.tokens[:-1])
    assert len(reply.tiers) == len(reply.tokens)
    assert reply.tiers.count(Tier.FULL) in (len(reply.rounds), len(reply.rounds) - ended)
    assert sum(r.kept for r in reply.rounds) == len(reply.tokens) - reply.tiers.count(Tier.FULL)
    assert reply.full_passes == len(reply.rounds)
    assert reply.full_rows == sum(r.block + 1 for r in reply.rounds)
    assert reply.held == len(PROMPT) + len(reply.tokens)


def test_the_same_item_again_gives_the_same_reply():
    host = Host(0.6, 0.8)
    asked = rounds_of(12, 3, THREE)
    assert host.one(asked) == host.one(asked)


def test_rounds_share_full_passes_with_each_other_and_with_others():
    host = Host(1.0, 1.0)
    passes = []
    full = host.engines[Tier.FULL]
    score = full.score
    full.score = lambda asked: passes.append(len(asked)) or score(asked)
    host.do(
        rounds_of(20, 2, name="s0"),
        rounds_of(20, 3, name="s1"),
        item(WorkKind.DECODE, PROMPT, name="s2", num=1),
    )
    assert passes == [3, 2, 1]


@pytest.mark.parametrize("plan", [TWO, THREE])
async def test_a_worker_of_all_tiers_is_asked_for_whole_rounds(world: World, plan):
    worker = world.worker("w", ALL)
    router = world.router(worker)
    session = spec("s", plan, max_tokens=40)
    [seen] = await answers(router, session)
    assert seen.tokens == plain(session)
    kinds = {i.kind for request in worker.work for i in request.items}
    assert kinds == {WorkKind.DECODE, WorkKind.ROUNDS}
    counters = seen.commits[-1].counters
    assert counters.from_draft + counters.from_slim + counters.from_full == 40
    assert counters.rounds > len(seen.commits) / 2
    # One call commits more tokens than one round would.
    assert len(worker.work) < counters.rounds


async def test_a_lossy_plan_does_not_play_inside(world: World):
    worker = world.worker("w", ALL)
    cascade = Plan(PlanKind.CASCADE, gamma=3)
    await answer(world.router(worker), spec("s", cascade))
    kinds = {i.kind for request in worker.work for i in request.items}
    assert WorkKind.ROUNDS not in kinds
    assert WorkKind.VERIFY in kinds


async def test_sessions_move_from_one_worker_of_all_tiers_to_two_of_some(world: World):
    both, cheap, large = world.worker("b", ALL), world.worker("c", CHEAP), world.worker("l", LARGE)
    router = world.router(both)

    def die(request):
        if len(both.work) == 4:
            world.announce(cheap, large, router=router)
            world.kill(both)

    both.before_step = die
    session = spec("s", THREE, max_tokens=40)
    assert await answer(router, session) == plain(session)
    assert {i.kind for request in cheap.work for i in request.items} == {WorkKind.PROPOSE}
    assert WorkKind.VERIFY in {i.kind for request in large.work for i in request.items}
