"""Law: under a grammar too, every mode gives the tokens of plain decoding, on real engines."""

import json
import random

import jsonschema
import pytest
import torch

from actors.engine.loader import load_full, slim_of
from actors.engine.ngram import NgramEngine
from actors.engine.route import Route
from actors.engine.seam import Extend, Propose
from actors.messages import StepRequest
from actors.tiers import TierHost
from policies.session import Session
from policies.vocabulary import Plan, PlanKind, SamplingParams, SamplingSpec, SessionSpec, Tier
from policies.work import WorkKind
from tests.engine.grammars import PERSON, SCHEMAS, TOY_STOP, grammars_of, text_of, toy_tokenizer
from tests.engine.toys import CPU, VOCAB, context, save_toy, text

TOY = toy_tokenizer()
PROMPT = tuple(TOY.encode('{"name": "a", "age": 3} {"leaf": true', add_special_tokens=False))
STOPS = frozenset({TOY_STOP})
LENGTH = 40
PARAMS = (
    {"temperature": 0.0},
    {"temperature": 0.8},
    {"temperature": 1.2, "top_k": 5, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2},
    {"temperature": 0.0, "presence_penalty": 1.0, "frequency_penalty": 0.5},
)
MODES = (
    (Plan(PlanKind.TWO_TIER, gamma=5), "model"),
    (Plan(PlanKind.TWO_TIER, gamma=3), "ngram"),
    (Plan(PlanKind.THREE_TIER, gamma=2, block=6), "model"),
    (Plan(PlanKind.THREE_TIER, gamma=4, block=7), "ngram"),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A full model, a route of three of its four layers, and another model as a draft."""
    full = load_full(save_toy(tmp_path_factory.mktemp("full"), "llama", 0), torch.float32, CPU)
    draft_dir = save_toy(tmp_path_factory.mktemp("draft"), "llama", 1, num_hidden_layers=1)
    route = Route(model_fingerprint="unchecked", num_layers=4, kept_layers=(0, 1, 3))
    return {
        Tier.FULL: full,
        Tier.SLIM: slim_of(full, route, None),
        Tier.DRAFT: load_full(draft_dir, torch.float32, CPU),
    }


class Workers:
    """A cheap worker with draft and slim, a large one with full, each with its own grammars."""

    def __init__(self, engine_of, models, draft: str):
        cheap, large = grammars_of(TOY), grammars_of(TOY)
        slim = engine_of(models[Tier.SLIM], grammars=cheap)
        first = engine_of(models[Tier.DRAFT], grammars=cheap) if draft == "model" else NgramEngine()
        full = engine_of(models[Tier.FULL], grammars=large)
        self.hosts = {
            "cheap": TierHost({Tier.DRAFT: first, Tier.SLIM: slim}, lambda: 0.0),
            "large": TierHost({Tier.FULL: full}, lambda: 0.0),
        }

    def answer(self, plan, schema, params, rng, max_tokens=LENGTH):
        """The session's whole run, with chunks of any size and contexts lost on the way."""
        sampling = SamplingSpec(
            SamplingParams(**params, grammar=text_of(schema)),
            seed=7,
            choice=0,
            prompt_len=len(PROMPT),
        )
        session = Session(SessionSpec("s", PROMPT, sampling, max_tokens, STOPS, plan))
        while session.wants is not None:
            worker = "cheap" if session.wants is WorkKind.PROPOSE else "large"
            item = session.dispatch(worker, rng.randint(1, 60), rng.randint(1, 4))
            [reply] = self.hosts[worker].step(StepRequest((item,)))
            session.on_reply(worker, reply)
            if rng.random() < 0.1:
                rng.choice(list(self.hosts.values())).release(["s"])
        for host in self.hosts.values():
            host.release(["s"])
        return session.tokens[len(PROMPT) :], session.finish


@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_mode_gives_the_tokens_of_plain_decoding(engine_of, models, schema, params):
    plain = Workers(engine_of, models, "ngram").answer(
        Plan(PlanKind.OFF), schema, params, random.Random(0)
    )
    for seed, (plan, draft) in enumerate(MODES):
        workers = Workers(engine_of, models, draft)
        assert workers.answer(plan, schema, params, random.Random(seed)) == plain
    tokens, finish = plain
    if finish == "stop":
        jsonschema.validate(json.loads(TOY.decode(tokens[:-1])), schema)
    else:
        assert len(tokens) == LENGTH


@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("token_budget", [3, 64])
def test_scoring_a_block_is_decoding_token_by_token(
    engine_of, load_toy, schema, params, token_budget
):
    engine = engine_of(load_toy("llama"), grammars=grammars_of(TOY), token_budget=token_budget)
    params = SamplingParams(**params, grammar=text_of(schema))
    told = context("s", PROMPT, params, seed=3, stop_ids=STOPS)
    decoded = engine.propose([Propose(told, 40)])[0]
    whole = context("t", [*PROMPT, *decoded], params, 3, len(PROMPT), STOPS)
    scored = engine.extend([Extend(whole, len(whole.tokens) - 1, len(decoded))])[0]
    assert scored == decoded
    kept = decoded[:-1][:5]
    block = [*kept, *text(1, 6)]
    forbidden = context("u", [*PROMPT, *block], params, 3, len(PROMPT), STOPS)
    rows = engine.extend([Extend(forbidden, len(forbidden.tokens), len(block) + 1)])[0]
    assert rows[: len(kept) + 1] == decoded[: len(kept) + 1]
    for name in "stu":
        engine.release(name)


def test_a_draft_that_lacks_every_allowed_id_still_proposes(engine_of, tmp_path):
    """Its own vocabulary ends before the ids of an opening brace."""
    model = load_full(save_toy(tmp_path, "llama", vocab_size=60), torch.float32, CPU)
    engine = engine_of(model, vocab_size=VOCAB, grammars=grammars_of(TOY))
    for temperature in (0.0, 1.0):
        params = SamplingParams(temperature=temperature, top_p=0.9, grammar=text_of(PERSON))
        told = context("s", PROMPT[:3], params, stop_ids=STOPS)
        assert len(engine.propose([Propose(told, 2)])[0]) == 2
        engine.release("s")


def test_a_session_without_a_grammar_is_not_followed(engine_of, load_toy):
    engine = engine_of(load_toy("llama"), grammars=grammars_of(TOY))
    engine.propose([Propose(context("s", PROMPT), 2)])
    assert engine.stats().matchers == 0
    constrained = SamplingParams(grammar=text_of(PERSON))
    engine.propose([Propose(context("t", PROMPT, constrained, stop_ids=STOPS), 2)])
    assert engine.stats().matchers == 1
    for name in "st":
        engine.release(name)
