"""Laws of prompt lookup in the router: the same tokens, and no call for a draft."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.engine.ngram import NgramEngine
from actors.lookup import Lookup
from actors.tiers import TierHost
from policies.vocabulary import Plan, PlanKind, Tier
from policies.work import WorkKind
from tests.actors.fakes import (
    CHEAP,
    LARGE,
    THREE_TIER,
    TWO_TIER,
    World,
    answer,
    answers,
    plain,
    spec,
)

HERE = Lookup(longest=4, shortest=1)
# What comes repeats what was: a short vocabulary's plain decoding meets its bigrams again.
PROMPT = tuple(range(50)) * 2


def drafts(worker) -> list:
    return [item for r in worker.requests for item in r.items if item.kind is WorkKind.PROPOSE]


@pytest.mark.parametrize("seed", range(6))
async def test_two_tier_drafts_without_a_call_and_commits_plain_decoding(world: World, seed: int):
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    router = world.router(cheap, large, lookup=HERE)
    asked = spec("s", TWO_TIER, seed=seed, prompt=PROMPT, max_tokens=80)
    [seen] = await answers(router, asked)
    assert seen.tokens == plain(asked)
    assert drafts(cheap) == []
    assert seen.commits[-1].counters.draft_tokens > 0
    assert [i for r in large.requests for i in r.items if i.kind is WorkKind.VERIFY]


async def test_it_proposes_what_the_worker_would_propose(world: World):
    asked = spec("s", TWO_TIER, prompt=PROMPT, max_tokens=80)
    cheap = world.worker("cheap", (Tier.DRAFT,))
    cheap._host = TierHost({Tier.DRAFT: NgramEngine(4, 1)}, lambda: 0.0)
    large = world.worker("large", LARGE)
    [called] = await answers(world.router(cheap, large), asked)
    router = world.router(world.worker("large-2", LARGE), lookup=HERE)
    [local] = await answers(router, replace(asked, session_id="t"))
    shared = ("draft_tokens", "draft_judged", "from_draft", "full_rows", "rounds")
    both = [tuple(getattr(a.commits[-1].counters, n) for n in shared) for a in (called, local)]
    assert both[0] == both[1]


async def test_screened_plans_still_draft_beside_slim(world: World):
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    router = world.router(cheap, large, lookup=HERE)
    assert await answer(router, spec("s", THREE_TIER)) == plain(spec("s"))
    assert drafts(cheap)


async def test_drafts_go_on_without_any_cheap_worker(world: World):
    router = world.router(world.worker("large", LARGE), lookup=HERE)
    asked = spec("s", Plan(PlanKind.TWO_TIER, gamma=3), prompt=PROMPT, max_tokens=60)
    [seen] = await answers(router, asked)
    assert seen.tokens == plain(asked)
    assert seen.commits[-1].counters.draft_tokens > 0
