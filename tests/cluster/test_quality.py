"""Laws of the quality report: arms, figures by their definitions, the run on a fake server."""

from __future__ import annotations

import json
import math
from pathlib import Path

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from actors.engine.loader import load_full
from actors.engine.route import fingerprint
from actors.engine.seam import Propose
from cluster.__main__ import cli
from cluster.config import ConfigError
from cluster.quality.arms import ArmOptions, arms
from cluster.quality.figures import ArmFigures, arm_figures, frontier
from cluster.quality.plot import draw
from cluster.quality.report import QualityReport, render
from cluster.quality.run import ScoringOptions, run_quality
from cluster.quality.scorer import STRETCH, FullModel, Score
from infra.bench import BenchError, BenchOptions
from infra.bench.options import Prompt
from infra.bench.sample import Sample, TurnResult
from infra.bench.schedule import Question, Turn
from policies.vocabulary import SamplingParams
from tests.engine.toys import context, make_engine, save_toy, text

PROMPT = Prompt("7", "writing", "hi")
COMPARED = arms(ArmOptions(("off", "via"), sweep=(0.9, 1.0)))


def test_a_sweep_is_an_arm_a_threshold():
    found = arms(ArmOptions(("off", "cascade", "via"), (0.95, 0.1), alphas=(0.3,), gate="ratio"))
    assert found == {
        "off": {"mode": "off", "token_ids": True},
        "cascade 0.3": {"mode": "cascade", "alpha": 0.3, "token_ids": True},
        "via 0.95/0.75": {
            **{"mode": "via", "gate": "ratio", "theta_accept": 0.95, "theta_escalate": 0.75},
            "token_ids": True,
        },
        "via 0.1/0": {
            **{"mode": "via", "gate": "ratio", "theta_accept": 0.1, "theta_escalate": 0.0},
            "token_ids": True,
        },
    }


def test_without_thresholds_a_lossy_mode_is_the_servers_own():
    assert arms(ArmOptions(("via", "cascade"))) == {
        mode: {"mode": mode, "token_ids": True} for mode in ("via", "cascade")
    }


@pytest.mark.parametrize(
    "options",
    [
        ArmOptions(("off",), sweep=(0.9,)),
        ArmOptions(("off",), gate="margin"),
        ArmOptions(("off",), alphas=(0.1,)),
        ArmOptions(("via",), sweep=(0.9, 0.9)),
        ArmOptions(("via",), sweep=(0.5,), escalate=0.5),
        ArmOptions(("via",), sweep=(1.5,)),
        ArmOptions(("via",), sweep=(0.9,), gate="wide"),
        ArmOptions(("via",), escalate=0.5),
        ArmOptions(("off", "off")),
    ],
)
def test_impossible_arms_are_refused(options):
    with pytest.raises(BenchError):
        arms(options)


def result(mode: str, seconds: float, answer: str, ids: tuple[int, ...], **server) -> TurnResult:
    asked = Question(mode, PROMPT, 1, 0)
    sample = Sample(asked, answer, len(ids), seconds, (seconds,), server, token_ids=ids)
    return TurnResult(Turn(mode, 1, (asked,)), (sample,), seconds)


def test_rejection_and_full_rate_are_two_figures():
    off = [result("off", 2.0, "ab", (1, 2, 3, 4), full_passes=4, full_rows=4)]
    counts = {"tokens_by_tier": {"draft": 3}, "draft_tokens": 8, "draft_judged": 5, "unseen": 1}
    via = [result("via", 1.0, "ac", (1, 2, 3, 5), **counts, full_rows=2, audit={"level": 2})]
    scores = {
        ("7", (1, 2, 3, 4)): Score(4, 4, 2.0),
        ("7", (1, 2, 3, 5)): Score(4, 3, 4.0),
    }
    exact, lossy = (arm_figures(arm, off, scores) for arm in (off, via))
    assert (exact.agreement, exact.full_rate, exact.same_text) == (1.0, 1.0, 1.0)
    assert (exact.rejection_rate, exact.audit_level) == (None, None)
    assert (lossy.agreement, lossy.perplexity) == (0.75, math.exp(1))
    assert lossy.rejection_rate == pytest.approx(1 - 3 / 5)
    assert lossy.full_rate == 0.75
    assert (lossy.full_rows_per_token, lossy.draft_tokens_per_token) == (0.5, 2.0)
    assert (lossy.time_ratio, lossy.speedup, lossy.same_text) == (0.5, 2.0, 0.0)
    assert lossy.audit_level == 2
    told = render(QualityReport({}, (exact, lossy), 0, ""))
    assert "tightened the gate in: via" in told


def test_frontier_keeps_what_no_other_point_beats():
    points = [(1.0, 1.0), (2.0, 0.8), (1.5, 0.7), (2.0, 0.9), (0.5, 1.0)]
    assert frontier(points) == [0, 3]
    assert frontier([]) == []


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return save_toy(tmp_path_factory.mktemp("toy"), "llama")


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_what_full_itself_generates_agrees_with_full(toy, temperature):
    """Over more than one stretch; a planted token is one disagreement."""
    prompt, length = text(1, 20), STRETCH + 9
    engine = make_engine(load_full(toy, torch.float32, torch.device("cpu")))
    asked = context("plain", prompt, SamplingParams(temperature=temperature), seed=5)
    [answer] = engine.propose([Propose(asked, length)])
    judge = FullModel(toy, "float32", "cpu", len(prompt) + length)
    found = judge.score(prompt, answer, temperature, 5)
    assert (found.tokens, found.agreeing) == (length, length)
    planted = [*answer[:-1], (answer[-1] + 1) % 256]
    assert judge.score(prompt, planted, temperature, 5).agreeing == length - 1


def test_perplexity_is_transformers_own(toy):
    prompt, answer = text(1, 20), text(2, STRETCH + 9)
    model = AutoModelForCausalLM.from_pretrained(toy, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    logprobs = logits.double().log_softmax(-1)
    expected = -float(logprobs[range(len(answer)), answer].sum())
    judge = FullModel(toy, "float32", "cpu", len(prompt) + len(answer))
    # The unprocessed softmax: no temperature.
    for temperature in (0.0, 0.7):
        found = judge.score(prompt, answer, temperature, 3)
        assert found.surprise == pytest.approx(expected, rel=1e-4)


class FakeJudge:
    """Even tokens agree."""

    def __init__(self) -> None:
        self.scored: list[tuple] = []

    def score(self, prompt, answer, temperature, seed) -> Score:
        self.scored.append((tuple(prompt), tuple(answer)))
        return Score(len(answer), sum(token % 2 == 0 for token in answer), 0.0)


def serve(name: str, *, ids: bool = True):
    """A server with the fingerprint `name`; via below theta_accept = 1 ends on an odd token."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/version":
            return httpx.Response(200, json={"fingerprint": name, "dtype": "float32"})
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "fake"}]})
        asked = json.loads(request.content)["viaserve"]
        assert asked["token_ids"] is True
        last = 5 if asked.get("theta_accept", 1) < 1 else 6
        told = {"token_ids": [2]} if ids else {}
        end = {"token_ids": [4, last], "full_passes": 3} if ids else {}
        events = [
            {"choices": [{"delta": {"content": "a"}}], "viaserve": told},
            {"choices": [{"delta": {"content": str(last)}}], "viaserve": end},
            {"choices": [], "usage": {"completion_tokens": 3}},
        ]
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        return httpx.Response(200, text="".join([*lines, "data: [DONE]\n\n"]))

    return httpx.MockTransport(answer)


@pytest.fixture
def options(tmp_path: Path) -> BenchOptions:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"turns": [word]}) for word in ("one", "two")) + "\n")
    return BenchOptions(path, modes=tuple(COMPARED), extensions=COMPARED, api_key="hush")


async def run(options, toy, transport, judge) -> QualityReport:
    return await run_quality(
        options,
        ScoringOptions(toy),
        transport,
        encode=lambda text: [len(text)],
        make_judge=lambda scoring, longest: judge,
    )


async def test_every_distinct_answer_is_scored_once(options, toy):
    judge = FakeJudge()
    report = await run(options, toy, serve(fingerprint(toy)), judge)
    assert sorted(judge.scored) == [((3,), ids) for ids in [(2, 4, 5)] * 2 + [(2, 4, 6)] * 2]
    assert [arm.mode for arm in report.arms] == ["off", "via 0.9/0.7", "via 1/0.8"]
    assert [arm.agreement for arm in report.arms] == [1.0, pytest.approx(2 / 3), 1.0]
    assert [arm.same_text for arm in report.arms] == [1.0, 0.0, 1.0]
    line = report.to_json()
    assert "\n" not in line
    assert json.loads(line)["options"]["scored_by"]["dtype"] == "float32"
    assert "hush" not in line + render(report)


async def test_another_model_or_an_older_server_is_one_readable_line(options, toy):
    with pytest.raises(BenchError, match="is not the model that"):
        await run(options, toy, serve("other"), FakeJudge())
    with pytest.raises(BenchError, match="gives no token ids"):
        await run(options, toy, serve(fingerprint(toy), ids=False), FakeJudge())
    stranger = httpx.MockTransport(lambda request: httpx.Response(404, text="no"))
    with pytest.raises(BenchError, match="is not a viaserve's"):
        await run(options, toy, stranger, FakeJudge())


def test_plot_is_a_png(tmp_path):
    def arm(mode, agreement, ratio, passes) -> ArmFigures:
        counts = (0.1, 0.9, passes, 1.0, 1.0, 9.0, ratio, 1.0, None)
        return ArmFigures(mode, 1, 0, 9, agreement, 1.5, *counts)

    path = tmp_path / "pareto.png"
    draw([arm("off", 1.0, 1.0, 1.0), arm("via 0.7/0.5", 0.9, 0.5, 0.3)], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    draw([arm("off", None, None, None)], path)


@pytest.mark.parametrize(
    "given", [["--sweep", "high"], ["--sweep", "0.9", "--modes", "off"], ["--plot", "/none/x.png"]]
)
def test_a_users_fault_ends_the_command_before_it_measures(tmp_path, given):
    done = CliRunner().invoke(cli, ["quality", "--prompts", str(tmp_path), *given])
    assert isinstance(done.exception, ConfigError | BenchError)
    assert "\n" not in str(done.exception)
