"""Laws of mode auto at the router: the controller's plans are played, and change no token."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.vocabulary import Plan, PlanKind, SessionSpec, Tier
from policies.work import WorkKind
from tests.actors.fakes import CHEAP, LARGE, World, answer, answers, plain, spec

MOST = Plan(PlanKind.OFF, gamma=16, block=32)


def auto(session_id: str, seed: int = 0, most: Plan = MOST, max_tokens: int = 200) -> SessionSpec:
    return replace(spec(session_id, most, seed=seed, max_tokens=max_tokens), auto=True)


async def test_the_controller_plays_what_pays_and_the_tokens_are_plain_decoding(world: World):
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    for tier, engine in cheap.engines.items():
        engine._agreement = 0.95 if tier is Tier.DRAFT else 1.0
    router = world.router(cheap, large)
    # A forward of full takes long, one of the others next to nothing.
    large.before_step = lambda request: world.time.advance(1.0)
    kinds = set()
    for number in range(12):
        [seen] = await answers(router, auto(f"s{number}", number))
        assert seen.tokens == plain(auto(f"s{number}", number))
        kinds |= {commit.plan.kind for commit in seen.commits}
        assert all(commit.why for commit in seen.commits)
        drafted = [commit for commit in seen.commits if Tier.DRAFT in commit.tiers]
        assert all(commit.plan.kind is not PlanKind.OFF for commit in drafted)
    assert {PlanKind.OFF, PlanKind.TWO_TIER} <= kinds
    rounds = router.status()["auto"]["rounds"]
    assert any("probe" in taken for taken in rounds)


@pytest.mark.parametrize("tiers", [(), (Tier.DRAFT,)])
async def test_no_plan_needs_a_tier_that_is_not_there(world: World, tiers):
    workers = [world.worker("large", LARGE)]
    if tiers:
        workers.append(world.worker("cheap", tiers))
    router = world.router(*workers)
    for number in range(6):
        [seen] = await answers(router, auto(f"s{number}", number))
        assert seen.tokens == plain(auto(f"s{number}", number))
        assert all(commit.plan.kind.tiers <= set(tiers) for commit in seen.commits)


async def test_a_requests_gamma_and_block_are_upper_bounds(world: World):
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    router = world.router(cheap, large)
    most = Plan(PlanKind.OFF, gamma=2, block=3)
    for number in range(8):
        await answer(router, auto(f"s{number}", number, most))
    proposed = [i for r in cheap.requests for i in r.items if i.kind is WorkKind.PROPOSE]
    assert proposed
    assert all(item.plan.gamma <= 2 and item.plan.block <= 3 for item in proposed)
