"""Law of exact mode: whatever the plan, tokens follow the full model's processed distribution,
and every seed gives the tokens of plain decoding (DESIGN section 2)."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from scipy import stats

from actors.engine.loader import load_full, slim_of
from actors.engine.route import Route
from actors.engine.seam import Extend
from actors.engine.transformers_engine import TransformersEngine
from actors.messages import StepRequest
from actors.tiers import TierHost
from policies.sampling import penalise, processed_distribution
from policies.session import Session
from policies.vocabulary import Plan, PlanKind, SamplingParams, SamplingSpec, SessionSpec, Tier
from policies.work import WorkKind
from tests.engine.toys import CPU, context, save_toy, text

Law = dict[tuple[int, ...], float]

VERY_UNLIKELY = 1e-4
SLOTS = 64
PROMPT = tuple(text(11, 20))
PLANS = {
    "off": Plan(PlanKind.OFF),
    "two_tier": Plan(PlanKind.TWO_TIER, gamma=3),
    "three_tier": Plan(PlanKind.THREE_TIER, gamma=2, block=4),
}
RICH = SamplingParams(
    temperature=1.3,
    top_k=12,
    top_p=0.9,
    min_p=0.05,
    repetition_penalty=1.2,
    presence_penalty=0.7,
    frequency_penalty=1.1,
    logit_bias=((40, 2.0),),
)


class Fleet:
    """Two workers, one with draft and slim and one with full, and the router's loop."""

    def __init__(self, engines: dict[Tier, TransformersEngine]) -> None:
        self.engines = engines
        self.cheap = TierHost({t: engines[t] for t in (Tier.DRAFT, Tier.SLIM)}, clock=lambda: 0.0)
        self.large = TierHost({Tier.FULL: engines[Tier.FULL]}, clock=lambda: 0.0)

    def run(self, sessions: Sequence[Session]) -> None:
        """To their ends, as many side by side as there are slots."""
        for start in range(0, len(sessions), SLOTS):
            some = sessions[start : start + SLOTS]
            while going := [s for s in some if s.wants is not None]:
                kind = going[0].wants
                name, host = (
                    ("cheap", self.cheap) if kind is WorkKind.PROPOSE else ("large", self.large)
                )
                asked = [s for s in going if (s.wants is WorkKind.PROPOSE) == (name == "cheap")]
                items = tuple(s.dispatch(name, 64) for s in asked)
                for session, reply in zip(asked, host.step(StepRequest(items)), strict=True):
                    session.on_reply(name, reply)
            for host in (self.cheap, self.large):
                host.release([s.session_id for s in some])

    def sample(
        self, plan: Plan, params: SamplingParams, seeds: Sequence[int], num_tokens: int
    ) -> list[Session]:
        """One session a seed, finished."""
        sessions = [
            Session(
                SessionSpec(
                    session_id=str(seed),
                    tokens=PROMPT,
                    sampling=SamplingSpec(params, seed, choice=0, prompt_len=len(PROMPT)),
                    max_tokens=num_tokens,
                    plan=plan,
                )
            )
            for seed in seeds
        ]
        self.run(sessions)
        return sessions

    def law_after(self, params: SamplingParams, outputs: Sequence[tuple[int, ...]]):
        """The full model's processed distribution after the prompt and each output."""
        engine = self.engines[Tier.FULL]
        for output in outputs:
            tokens = [*PROMPT, *output]
            [[row]] = engine.logits([Extend(context("law", tokens), len(tokens), 1)])
            engine.release("law")
            penalised = penalise(row.float().numpy(), params, PROMPT, output)
            yield processed_distribution(penalised, params)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Full: a random model. Slim: three of its four layers. Draft: another random model."""
    full = load_full(save_toy(tmp_path_factory.mktemp("full"), "llama", 0), torch.float32, CPU)
    draft_dir = save_toy(tmp_path_factory.mktemp("draft"), "qwen3", 5, num_hidden_layers=1)
    route = Route(model_fingerprint="unchecked", num_layers=4, kept_layers=(0, 1, 3))
    loaded = {
        Tier.FULL: full,
        Tier.SLIM: slim_of(full, route, None),
        Tier.DRAFT: load_full(draft_dir, torch.float32, CPU),
    }
    engines = {
        tier: TransformersEngine(model, num_slots=SLOTS, slot_tokens=128, token_budget=512)
        for tier, model in loaded.items()
    }
    yield Fleet(engines)
    for engine in engines.values():
        engine.check_integrity()
        assert engine.stats().sessions == 0


@functools.cache
def joint_law(fleet: Fleet, params: SamplingParams, num_tokens: int) -> Law:
    """P(first tokens) by the chain rule, for all of them."""
    law: Law = {(): 1.0}
    for _ in range(num_tokens):
        rows = zip(law, fleet.law_after(params, list(law)), strict=True)
        law = {(*x, int(v)): law[x] * row[v] for x, row in rows for v in row.nonzero()[0]}
    return law


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    ("params", "num_tokens"),
    [
        (SamplingParams(temperature=0.7), 2),
        (SamplingParams(temperature=1.5, top_k=3), 4),
        (SamplingParams(top_p=0.5), 3),
        (RICH, 2),
    ],
    ids=["temperature", "top_k", "top_p", "all rules"],
)
def test_the_first_tokens_follow_the_full_models_law(fleet, plan, params, num_tokens):
    """Their joint law; all but the first token went through drafting and verifying."""
    # Other seeds for each plan: equal samples would be judged only once.
    first = 100_000 * (1 + list(PLANS).index(plan))
    size = 600
    sessions = fleet.sample(PLANS[plan], params, range(first, first + size), num_tokens)
    counts = Counter(tuple(s.tokens[len(PROMPT) :]) for s in sessions)
    law = joint_law(fleet, params, num_tokens)
    assert counts.keys() <= law.keys()
    # Cells that are too rare for the test are one cell.
    often = [x for x in law if size * law[x] >= 5]
    expected = [size * law[x] for x in often]
    observed = [counts[x] for x in often]
    assert len(often) >= 10
    rest = [size - sum(observed)], [size - sum(expected)]
    if rest[1][0] >= 5:
        observed, expected = observed + rest[0], expected + rest[1]
    else:
        expected = [e * sum(observed) / sum(expected) for e in expected]
    assert stats.chisquare(observed, expected).pvalue > VERY_UNLIKELY


@pytest.mark.parametrize(
    "params", [SamplingParams(temperature=0.0), SamplingParams(), RICH], ids=str
)
def test_every_seed_gives_the_tokens_of_plain_decoding(fleet, params):
    seeds = range(-8, 8)
    plain = [s.tokens for s in fleet.sample(PLANS["off"], params, seeds, 20)]
    for plan in ("two_tier", "three_tier"):
        assert [s.tokens for s in fleet.sample(PLANS[plan], params, seeds, 20)] == plain


def test_something_is_accepted_and_something_is_not(fleet):
    """Not vacuous: all three tiers have a say."""
    sessions = fleet.sample(PLANS["three_tier"], SamplingParams(temperature=0.7), range(50), 9)
    total = {
        name: sum(getattr(s.counters, name) for s in sessions)
        for name in ("draft_tokens", "from_draft", "from_slim", "from_full")
    }
    assert all(total.values()), total
    assert total["from_draft"] < total["draft_tokens"]
