"""Laws of the route job: rows, judges, objective, and the command with Ray for real."""

import json
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from actors.engine.build import checked_route
from actors.engine.int8 import int8_twin, quantise_linears
from actors.engine.loader import load_sliced
from actors.engine.route import ModelError, fingerprint
from cluster.__main__ import cli
from cluster.config import ConfigError
from cluster.trio.likeness import likeness
from cluster.trio.routes.candidate import Candidate
from cluster.trio.routes.candidates import Candidates, attention_share
from cluster.trio.routes.judge import Bench, Judge, last_hidden
from cluster.trio.routes.objective import Assumed, Steps, StepTimes, predict
from cluster.trio.routes.prompts import answered
from cluster.trio.routes.rows import split_rows
from cluster.trio.routes.step_times import fields_of, measure_steps, read_steps, steps_of
from cluster.trio.stock import load_stock
from cluster.trio.teacher import load_head
from cluster.trio.text.corpus import Corpus
from policies.masks import Space, even_mask
from tests.trio.toys import CHATS, IDLE, TOKENS

SPACE = Space(7)
TIMES = StepTimes(0.030, 0.040, 0.004, 0.0045)
INT8_TIMES = StepTimes(0.020, 0.032, 0.003, 0.004)
STEPS = Steps(TIMES, INT8_TIMES)
BEST = tuple(layer not in IDLE for layer in range(1, 6))


def bench(model_dir) -> Bench:
    return Bench(model_dir, "float32", "cpu", 1, 0.8)


@pytest.fixture(scope="module")
def rows(corpus_dir):
    corpus = Corpus(corpus_dir)
    return split_rows(map(corpus.read, corpus.shards()), (100, 130), 32)


def test_sets_of_rows_are_disjoint_and_of_the_sizes_asked_for(rows):
    searched, held_out = rows
    assert [int(r.scored.sum()) for r in rows] == [len(r.hidden) for r in rows] == [100, 130]
    seen = {tuple(ids) for ids in searched.ids.tolist()}
    assert not seen & {tuple(ids) for ids in held_out.ids.tolist()}


def test_too_little_text_is_told(corpus_dir):
    chats = Corpus(corpus_dir).read(0)
    with pytest.raises(ModelError, match=rf"holds {CHATS * (TOKENS - 1)} rows of 5000"):
        split_rows([chats], (5000,), TOKENS)


def test_leaving_out_layers_that_do_nothing_changes_nothing(idle_dir, rows):
    candidates = Candidates(SPACE, fingerprint(idle_dir), 0.25)
    judge = Judge(bench(idle_dir), rows)
    planted = judge.judge(candidates.route(Candidate(BEST)), 0)
    assert planted.agreement == 1
    assert planted.coupling > 0.999
    even = judge.judge(candidates.route(Candidate(even_mask(SPACE, 4))), 0)
    assert even.agreement < 1
    assert even.rows == 100


def test_an_int8_candidate_is_judged_as_it_is_served(idle_dir, rows):
    candidates = Candidates(SPACE, fingerprint(idle_dir), 0.25)
    judge = Judge(bench(idle_dir), rows)
    dense, int8, dense_again = (
        judge.judge(candidates.route(Candidate(BEST, flag)), 0) for flag in (False, True, False)
    )
    assert dense_again == dense
    assert 0.9 < int8.coupling < dense.coupling
    route = candidates.route(Candidate(BEST, int8=True))
    served = load_sliced(idle_dir, route, torch.float32, torch.device("cpu"))
    quantise_linears(served)
    served.set_attn_implementation("sdpa")
    with torch.inference_mode():
        hidden = last_hidden(served, rows[0].ids)[rows[0].scored]
        logits = served.lm_head(hidden), load_head(idle_dir, torch.float32).logits(rows[0].hidden)
    again = likeness(*logits, temperature=0.8)
    assert int8.kl == pytest.approx(again.kl, rel=1e-3)
    assert int8.agreement == pytest.approx(again.agreement)


def test_the_twin_of_a_model_shares_all_but_its_linears(idle_dir):
    full = load_stock(idle_dir, "float32", "cpu")
    before = dict(full.named_parameters())
    twin = int8_twin(full)
    assert dict(full.named_parameters()).keys() == before.keys()
    assert all(parameter is before[name] for name, parameter in twin.named_parameters())
    assert not any(isinstance(module, nn.Linear) for module in twin.modules())
    assert any(isinstance(module, nn.Linear) for module in full.modules())


def test_the_share_of_attention_is_that_of_the_weights(idle_dir):
    attention = 96 * 96 * 2 + 96 * 32 * 2
    assert attention_share(idle_dir) == pytest.approx(
        attention / (attention + 3 * 96 * 192 + 2 * 96)
    )


@pytest.mark.parametrize("coupling", [0.3, 0.6, 0.9])
def test_a_cheaper_or_more_alike_slim_costs_less_a_token(coupling):
    now = predict(STEPS, Assumed(), 0.6, coupling)
    assert predict(STEPS, Assumed(), 0.5, coupling).three_tier_s < now.three_tier_s
    assert predict(STEPS, Assumed(), 0.6, coupling + 0.05).three_tier_s < now.three_tier_s
    assert predict(STEPS, Assumed(healing=0.5), 0.6, coupling).three_tier_s < now.three_tier_s
    int8 = predict(STEPS, Assumed(), 0.6, coupling, int8=True)
    assert int8.three_tier_s < now.three_tier_s
    assert (int8.off_s, int8.two_tier_s) == (now.off_s, now.two_tier_s)
    assert int8.slim_cost == pytest.approx((0.003 + 0.6 * 0.017) / 0.030)
    assert now.off_s == pytest.approx(TIMES.full_1_s)
    assert now.slim_cost == pytest.approx((0.004 + 0.6 * 0.026) / 0.030)


def test_measured_steps_are_times(idle_dir):
    steps = measure_steps(bench(idle_dir), int8=True)
    for times in (steps.dense, steps.int8):
        assert times is not None
        assert times.head_1_s > 0
        assert times.full_1_s > 0
    assert steps_of(json.loads(json.dumps(fields_of(steps))), int8=True) == steps
    assert measure_steps(bench(idle_dir)).int8 is None


def test_step_times_without_int8_do_for_a_search_without(tmp_path):
    path = tmp_path / "steps.json"
    path.write_text(json.dumps(fields_of(Steps(TIMES))))
    assert read_steps(path) == Steps(TIMES)
    with pytest.raises(ModelError, match="and int8 with the same: KeyError"):
        read_steps(path, int8=True)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"full_1_s": "x"}'])
def test_a_calibration_that_is_none_is_told(tmp_path, content):
    (tmp_path / "steps.json").write_text(content)
    with pytest.raises(ModelError, match="give JSON with full_1_s"):
        read_steps(tmp_path / "steps.json")


def test_prompts_are_answered_once_and_as_a_plain_forward_would(idle_dir, tmp_path):
    path = tmp_path / "answers.safetensors"
    prompts = ["t5 t6 t7", "t9", "t11 t12 t13 t14"]
    chats = answered(bench(idle_dir), prompts, 24, 0, path)
    assert chats.ids[0, :3].tolist() == [5, 6, 7]
    assert (chats.writers[:, :1] == 0).all()
    again = answered(bench(idle_dir), ["ignored"], 24, 0, path)
    assert torch.equal(chats.ids, again.ids)
    judged = Judge(bench(idle_dir), split_rows([chats], (10,), 24))
    whole = Candidates(SPACE, "any", 0.25).route(Candidate(SPACE.whole))
    assert judged.judge(whole, 0).agreement == 1


@contextmanager
def here(bench, sets, staff):
    """A judge in this process instead of Ray's."""
    judge = Judge(bench, sets)
    yield lambda routes, which: (judge.judge(route, which) for route in routes)


@pytest.mark.parametrize("ray", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_command_finds_the_planted_route_and_goes_on(
    idle_dir, corpus_dir, tmp_path, monkeypatch, ray
):
    if not ray:
        monkeypatch.setattr("cluster.trio.routes.job.judges", here)
    out = tmp_path / "route.json"
    steps = tmp_path / "steps.json"
    steps.write_text(json.dumps(fields_of(Steps(TIMES))))
    options = (
        f"--layers 4 --candidates 4 --rows 100 --held-out-rows 100 --chat-tokens 32 --workers 2 \
        --dtype float32 --references 2 --calibration {steps} --corpus {corpus_dir} --out {out}"
    )
    told = CliRunner().invoke(cli, ["route", str(idle_dir), *options.split()])
    assert told.exit_code == 0, told.output
    route = checked_route(idle_dir, out).route
    assert set(range(7)) - set(route.kept_layers) == set(IDLE)
    assert route.figures["agreement"] == 1
    held_out = json.loads(told.stdout.splitlines()[-1])["held_out"]
    assert {"greedy", "even", "random, mean of 2", "random, best of 2"} < held_out.keys()
    assert out.with_suffix(".png").stat().st_size > 0
    journal = tmp_path / "route.journal.jsonl"
    before, found = journal.read_bytes(), out.read_bytes()
    journal.write_bytes(before[: len(before) // 2])
    assert CliRunner().invoke(cli, ["route", str(idle_dir), *options.split()]).exit_code == 0
    assert journal.read_bytes() == before
    assert out.read_bytes() == found


def test_int8_wins_where_it_is_faster_and_loses_where_it_is_not(
    idle_dir, corpus_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr("cluster.trio.routes.job.judges", here)
    for name, ratio in (("fast", 0.2), ("slow", 1.5)):
        out, steps = tmp_path / f"{name}.json", tmp_path / "steps.json"
        int8 = StepTimes(*(ratio * seconds for seconds in asdict(TIMES).values()))
        steps.write_text(json.dumps(fields_of(Steps(TIMES, int8))))
        options = (
            f"--layers 4 --candidates 8 --rows 100 --held-out-rows 100 --chat-tokens 32 --int8 \
            --dtype float32 --references 2 --calibration {steps} --corpus {corpus_dir} --out {out}"
        )
        told = CliRunner().invoke(cli, ["route", str(idle_dir), *options.split()])
        assert told.exit_code == 0, told.output
        route = checked_route(idle_dir, out).route
        assert set(range(7)) - set(route.kept_layers) == set(IDLE)
        assert route.weights == ("int8" if name == "fast" else None)
        held_out = json.loads(told.stdout.splitlines()[-1])["held_out"]
        own, other = (", int8", "") if name == "fast" else ("", ", int8")
        assert {f"greedy{own}", f"same mask{other}", f"random{own}, mean of 2"} < held_out.keys()
    without = options.replace(" --int8", "")
    refused = CliRunner().invoke(cli, ["route", str(idle_dir), *without.split()])
    assert isinstance(refused.exception, ModelError)
    assert "was begun with int8 True, not None" in str(refused.exception)


@pytest.mark.parametrize(("has_bf16", "told"), [(True, "bfloat16"), (False, "float32")])
def test_the_default_type_is_what_the_processor_computes_fast(
    idle_dir, corpus_dir, tmp_path, monkeypatch, has_bf16, told
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr("cluster.trio.routes.job.judges", here)
    steps = tmp_path / "steps.json"
    steps.write_text(json.dumps(fields_of(Steps(TIMES))))
    options = f"--layers 4 --candidates 0 --lookahead 0 --rows 20 --held-out-rows 20 --corpus \
        {corpus_dir} --calibration {steps} --references 1 --out {tmp_path / 'route.json'}"
    assert CliRunner().invoke(cli, ["route", str(idle_dir), *options.split()]).exit_code == 0
    head = (tmp_path / "route.journal.jsonl").read_text().splitlines()[0]
    assert json.loads(head)["settings"]["dtype"] == told
    options = f"--shards 1 --chats 2 --tokens 64 --out {tmp_path}"
    assert CliRunner().invoke(cli, ["corpus", str(idle_dir), *options.split()]).exit_code == 0
    assert json.loads((tmp_path / "recipe.json").read_text())["dtype"] == told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", "--corpus, --prompts: give one of them"),
        ("--corpus c --prompts p", "--corpus, --prompts: give one of them"),
        ("--corpus c --objective fast", "--objective fast: give one of cost, kl, agreement"),
        ("--corpus c --layers 7", "--layers: 7 to 7: give sizes from 2 to 6"),
        ("--corpus c --layers 5 --min-layers 3", "--layers: give it alone"),
        ("--corpus c --dtype int4", "--dtype int4: give one of auto, float32, bfloat16, float16"),
        ("--corpus c --int8 --objective kl", "--int8, --objective kl: int8 is only ever cheaper"),
        ("--corpus c --int8 --objective agreement", "--int8, --objective agreement"),
        ("--corpus c --device nowhere", "--device nowhere: "),
        ("--corpus c --temperature 0", "--temperature 0: give a number above 0"),
    ],
)
def test_options_that_are_not_allowed_are_named(idle_dir, tmp_path, options, told):
    args = ["route", str(idle_dir), "--out", str(tmp_path / "r.json"), *options.split()]
    found = CliRunner().invoke(cli, args)
    assert isinstance(found.exception, ConfigError)
    assert told in str(found.exception)
