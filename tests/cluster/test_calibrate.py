"""Laws of `calibrate`: equal tiers agree, what it sees is what is served, files round-trip."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from actors.engine.build import TierSource
from actors.engine.loader import load_full, slim_of
from actors.engine.lookup_first import LookupFirst
from actors.engine.ngram import NgramEngine
from actors.engine.reader import Reader
from actors.engine.route import Route, fingerprint
from actors.engine.seam import Extend, Propose
from cluster.advice.answers import Asked, Examiner, Reach, agreement, curves, drafted_share
from cluster.advice.calibrate import CalibrateJob, calibrate
from cluster.advice.calibration import Calibration, StepTime, forward_time, read, write
from cluster.advice.calibration_report import render
from cluster.advice.overhead import router_call_s
from cluster.advice.steps import Grid, time_steps
from cluster.config import ConfigError, parse
from cluster.preflight import check
from infra.bench.options import Prompt
from policies.acceptance import accept_exact
from policies.rounds import rounds
from policies.vocabulary import SamplingParams, Tier
from tests.engine.toys import CPU, VOCAB, context, make_engine, save_toy, text

REACH = Reach(gamma=6, block=8, usual_gamma=3)
WARM = SamplingParams(temperature=0.8)
LAYERS = 4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in tests/engine: threads that spin hold up other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_trio(path: Path) -> dict[str, Any]:
    """A toy model with a tokenizer, and a config whose draft and slim are all of its layers."""
    folder = save_toy(path / "full", "llama")
    words = {f"w{i}": i for i in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(words, "w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="w3", bos_token="w1", eos_token="w2"
    ).save_pretrained(folder)
    route = {
        "format": "viaserve-route-1",
        "model_fingerprint": fingerprint(folder),
        "num_layers": LAYERS,
        "kept_layers": list(range(LAYERS)),
    }
    (path / "route.json").write_text(json.dumps(route))
    return {
        "model": {"path": str(folder), "dtype": "float32", "context": 256},
        "draft": {"kind": "route", "path": str(path / "route.json")},
        "slim": {"route": str(path / "route.json")},
        "pools": {
            "cheap": {"tiers": ["draft", "slim"], "num_cpus": 1},
            "large": {"tiers": ["full"], "num_cpus": 1},
        },
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> dict[str, Any]:
    return save_trio(tmp_path_factory.mktemp("trio"))


def job_of(config: dict[str, Any]) -> CalibrateJob:
    prompts = [Prompt(str(i), "ab"[i % 2], " ".join(f"w{t}" for t in text(i, 9))) for i in range(3)]
    return CalibrateJob(
        facts=check(parse(config, "test")),
        prompts=tuple(prompts),
        prompts_file=Path("prompts.jsonl"),
        max_tokens=24,
        temperature=0.8,
        seed=3,
        sessions=(1, 2),
        context_tokens=40,
        repeats=1,
        hop_s=0.001,
    )


@pytest.fixture(scope="module")
def found(config) -> Calibration:
    return calibrate(job_of(config))


def test_tiers_of_the_same_model_always_agree(found):
    for each in (found.agreement, *found.categories.values()):
        assert (each.draft_full, each.draft_slim, each.slim_full) == (1.0, 1.0, 1.0)
        assert each.round_tokens == tuple(range(2, len(each.round_tokens) + 2))
    assert set(found.categories) == {"a", "b"}
    assert found.agreement.places == sum(each.places for each in found.categories.values())
    assert (found.hit_frac, found.length_frac, found.lookup_s) == (1.0, 1.0, None)
    assert found.curves.slim_full is not None
    assert found.curves.slim_full.mean(4) == 5


def test_every_tier_is_timed_and_the_model_knows_all_plans(found):
    assert {step.tier for step in found.steps} == set(Tier)
    assert {step.sessions for step in found.steps} == {1, 2}
    assert all(0 < step.seconds_p50 <= step.seconds_p90 for step in found.steps)
    assert set(found.prefill_token_s) == set(Tier)
    model = found.model_at(2)
    assert set(model.times) == set(Tier)
    assert model.times[Tier.FULL].hop_s == found.hop.seconds > 0.001


def test_a_draft_that_reads_full_is_asked_for_what_it_would_propose(tmp_path):
    """Every layer of full without a reader's say: the same as a blind draft of all layers."""
    config = save_trio(tmp_path)
    save_file(Reader(96, 1e-6).state_dict(), tmp_path / "reader.safetensors")
    path = tmp_path / "reading.json"
    route = json.loads((tmp_path / "route.json").read_text())
    path.write_text(json.dumps(route | {"reads": "full", "reader": "reader.safetensors"}))
    config["draft"]["path"] = str(path)
    config["pools"] = {"all": {"tiers": ["draft", "slim", "full"], "num_cpus": 1}}
    found = calibrate(job_of(config))
    assert found.agreement.draft_full == 1.0
    assert found.agreement.round_tokens == tuple(range(2, len(found.agreement.round_tokens) + 2))
    assert found.served.one_worker
    assert found.model_at(1).times[Tier.DRAFT].hop_s == 0.0


def test_a_calibration_survives_its_file(found, tmp_path):
    write(found, tmp_path / "c.json")
    assert read(tmp_path / "c.json") == found
    assert sum(each.length for each in found.answers) == found.agreement.places
    assert found.served.model in render(found)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda raw: raw | {"format": "viaserve-calibration-0"}, "format must be viaserve"),
        (lambda raw: raw | {"hit_frac": "often"}, "hit_frac: Input should be a valid number"),
        (lambda raw: {k: v for k, v in raw.items() if k != "steps"}, "steps: Field required"),
        (
            lambda raw: raw | {"served": raw["served"] | {"slots": 0}},
            r"served\.slots: .*greater",
        ),
        (lambda raw: raw | {"hop": raw["hop"] | {"wire_s": 1e30}}, r"hop\.wire_s: .* less than"),
        (lambda raw: [raw], "format must be viaserve"),
    ],
)
def test_a_file_that_is_no_calibration_is_one_readable_line(found, tmp_path, damage, told):
    path = tmp_path / "c.json"
    write(found, path)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ConfigError, match=told) as fault:
        read(path)
    assert "\n" not in str(fault.value)


def test_prompt_lookup_is_no_tier_to_time_but_a_call(config):
    job = job_of(config | {"draft": {"kind": "ngram"}})
    found = calibrate(job)
    assert {step.tier for step in found.steps} == {Tier.SLIM, Tier.FULL}
    assert found.lookup_s is not None
    draft = found.model_at(1).times[Tier.DRAFT]
    assert (draft.call_s, draft.hop_s, draft.forward_s(8)) == (found.lookup_s, 0.0, 0.0)
    for each in found.answers:
        # Nothing but lookup proposes.
        assert each.drafted is not None
        assert each.drafted.proposed == each.found
    assert found.agreement.slim_full == 1.0


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> PreTrainedModel:
    return load_full(save_toy(tmp_path_factory.mktemp("toy"), "llama"), torch.float32, CPU)


class Toys:
    """A toy trio in memory: slim and draft are routes of full, or the draft is prompt lookup."""

    def __init__(
        self, full: PreTrainedModel, lookup: TierSource | None = None, stop_below: float = 0.0
    ) -> None:
        kept = {Tier.SLIM: [0, 1, 3], Tier.DRAFT: [0, 3]}
        self.engines: dict[Tier, Any] = {Tier.FULL: make_engine(full, num_slots=8)}
        for tier, layers in kept.items():
            raw = {"model_fingerprint": "toy", "num_layers": LAYERS, "kept_layers": layers}
            routed = slim_of(full, Route.model_validate(raw), None)
            self.engines[tier] = make_engine(
                routed, num_slots=8, stop_below=stop_below if tier is Tier.DRAFT else 0.0
            )
        if lookup is not None and lookup.lookup:
            lengths = (lookup.ngram_longest, lookup.ngram_shortest)
            self.engines[Tier.DRAFT] = LookupFirst(self.engines[Tier.DRAFT], *lengths)
        elif lookup is not None:
            self.engines[Tier.DRAFT] = NgramEngine(lookup.ngram_longest, lookup.ngram_shortest)
        self.examiner = Examiner(self.engines, lookup, WARM, 5, frozenset())


def served(toys: Toys, prompt: list[int], judge: Tier, gamma: int, count: int) -> list[list[int]]:
    """Two-tier rounds as a worker plays them, the judge's own text."""
    asked = context("served", prompt, WARM, seed=5)
    commits = []
    while sum(map(len, commits)) + gamma < count:
        base = len(asked.tokens)
        [drafted] = toys.engines[Tier.DRAFT].propose([Propose(asked, gamma)])
        scored = Extend(asked, len(asked.tokens), len(drafted) + 1)
        [chosen] = toys.engines[judge].extend([scored])
        commits.append(list(accept_exact(drafted, chosen)))
        del asked.tokens[base:]
        for engine in toys.engines.values():
            engine.truncate(asked.session_id, base)
        asked.tokens += commits[-1]
    for engine in toys.engines.values():
        engine.release(asked.session_id)
    return commits


LOOKUP = TierSource(ngram_longest=3, ngram_shortest=1)


@pytest.mark.parametrize("lookup", [None, LOOKUP, replace(LOOKUP, model_dir="toy", lookup=True)])
@pytest.mark.parametrize("gamma", [1, 3, 6])
@pytest.mark.parametrize("stop_below", [0.0, 0.2])
def test_rounds_along_the_answer_are_the_rounds_that_are_served(full, gamma, lookup, stop_below):
    toys = Toys(full, lookup, stop_below)
    count = 40
    prompts = [text(seed, 12, 40) * 2 for seed in range(2)]
    answers = toys.examiner.examine([Asked(tuple(p)) for p in prompts], count, REACH.gamma)
    for prompt, each in zip(prompts, answers, strict=True):
        seen = each.screens(Tier.FULL, REACH.gamma)
        assert seen is not None
        commits = served(toys, prompt, Tier.FULL, gamma, count)
        assert [r.kept + 1 for r in rounds(seen, gamma)] == list(map(len, commits))
        flat = [token for tokens in commits for token in tokens]
        assert flat == list(each.ids[: len(flat)])
    assert all(engine.stats().sessions == 0 for engine in toys.engines.values())


def test_rates_are_shares_of_places(full):
    toys = Toys(full)
    answers = toys.examiner.examine([Asked(tuple(text(1, 20)))], 50, REACH.gamma)
    [each] = answers
    found = agreement(answers, REACH)
    same = sum(a == b for a, b in zip(each.chosen[Tier.SLIM], each.ids, strict=True))
    assert found.slim_full == same / 50
    assert 0 < found.slim_full < 1
    assert drafted_share(answers, REACH) == (1.0, 1.0)
    three = curves(answers, REACH)
    assert three.draft_full is not None
    assert three.draft_full.means == found.round_tokens


def test_without_a_slim_or_a_draft_their_rates_are_missing(full):
    engine = make_engine(full)
    examiner = Examiner({Tier.FULL: engine}, None, WARM, 5, frozenset())
    found = agreement(examiner.examine([Asked((5, 6, 7))], 8, REACH.gamma), REACH)
    assert (found.draft_full, found.draft_slim, found.slim_full) == (None, None, None)
    assert found.round_tokens == ()


def test_steps_have_the_rows_they_say_and_none_is_left_behind(full):
    engine = make_engine(full, num_slots=2, slot_tokens=64, token_budget=8)
    ticks = iter(range(10_000))
    grid = Grid((1, 2), 32, 3, text(0, 50), WARM)
    steps = time_steps({Tier.FULL: engine}, grid, {Tier.FULL: 8}, clock=lambda: float(next(ticks)))
    assert {(s.sessions, s.rows) for s in steps} == {
        *((1, rows) for rows in (1, 2, 4, 5, 8)),
        *((2, rows) for rows in (2, 4, 6)),
    }
    assert all(s.seconds_p50 == s.seconds_p90 == 1.0 for s in steps)
    prefill = 2 * 32
    assert engine.stats().rows == prefill + 3 * sum(s.rows for s in steps)
    assert engine.stats().sessions == 0


def test_a_step_time_is_what_was_measured_and_never_falls_with_its_rows():
    def step(sessions: int, rows: int, seconds: float) -> StepTime:
        return StepTime(Tier.FULL, sessions, rows, seconds, seconds)

    steps = [step(1, 1, 1.0), step(1, 4, 3.0), step(1, 8, 2.0), step(1, 12, 4.5)]
    forward_s = forward_time(steps, 1)
    assert [forward_s(rows) for rows in (0.5, 1, 4, 8, 12)] == [1.0, 1.0, 2.5, 2.5, 4.5]
    assert forward_s(16) == pytest.approx(6.5)
    four = [step(4, 4, 2.0), step(4, 8, 6.0)]
    shared = forward_time([*steps, *four], 2)
    assert shared(4) == pytest.approx(2.5 + (2.0 - 2.5) / 3)
    assert forward_time([*steps, *four], 16)(8) == 6.0


def test_the_routers_own_part_of_a_call_is_measured_without_a_worker():
    assert 0 < router_call_s(40) < 1


def test_prompts_that_leave_no_room_are_told(config):
    job = replace(job_of(config), max_tokens=250)
    with pytest.raises(Exception, match="no prompt leaves 250 tokens"):
        calibrate(job)
