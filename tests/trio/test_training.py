"""Laws of healing and distillation: they bring a student nearer to full, a killed job goes on as
if it had not been, and what is written is what was trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from actors.engine.build import EngineSpec, TierSource, build_engines
from actors.engine.loader import load_sliced
from actors.engine.route import ModelError, Route, fingerprint, read_route
from actors.engine.seam import Extend, Propose
from cluster.__main__ import cli
from cluster.config import ConfigError
from cluster.trio.learn.course import Course
from cluster.trio.learn.distil import DistilJob, default_layers, distil
from cluster.trio.learn.heal import HealJob, heal
from cluster.trio.learn.losses import LOSSES, loss_and_gradient
from cluster.trio.learn.report import Watch
from cluster.trio.learn.train import Schedule, held_out
from cluster.trio.teacher import load_head
from cluster.trio.tensors import written_whole
from cluster.trio.text.corpus import Corpus
from policies.vocabulary import Tier
from tests.engine.toys import VOCAB, context
from tests.trio.toys import CHATS, TOKENS

STEPS = 30
SCHEDULE = Schedule(tokens=STEPS * CHATS * TOKENS, batch=CHATS, rate=3e-3, checkpoint_s=0.0)


class Killed(Exception):  # noqa: N818 - no error
    """Stands for a kill: nothing after it is written."""


class Counting(Watch):
    """A watch that ends the job after some steps."""

    def __init__(self, last: int | None = None) -> None:
        super().__init__(SCHEDULE.tokens)
        self.steps = 0
        self._last = last

    def step(self, tokens: int, loss: float) -> None:
        self.steps += 1
        if self.steps == self._last:
            raise Killed


def distil_job(
    model: Path, corpus: Path, out: Path, schedule: Schedule = SCHEDULE, **more
) -> DistilJob:
    course = Course(model, corpus, out, schedule, shortlist=200, temperature=1.0)
    return DistilJob(course, (0, 6), **more)


def heal_job(model: Path, corpus: Path, out: Path) -> HealJob:
    route = Route(model_fingerprint=fingerprint(model), num_layers=7, kept_layers=(0, 4, 6))
    path = out.with_name("bare.json")
    path.write_text(route.model_dump_json())
    course = Course(model, corpus, out, SCHEDULE, shortlist=VOCAB, temperature=1.0)
    return HealJob(course, path, rank=8)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_written_gradient_is_autograds(kind):
    torch.manual_seed(0)
    student, full = torch.randn(5, 40, requires_grad=True), torch.randn(5, 40)
    log_student, target = student.log_softmax(-1), full.softmax(-1)
    loss = torch.zeros(())
    if kind != "tv":
        loss = loss + nn.functional.kl_div(log_student, target, reduction="batchmean")
    if kind != "kl":
        loss = loss + 0.5 * (log_student.exp() - target).abs().sum(-1).mean()
    loss.backward()
    value, gradient = loss_and_gradient(student.detach(), full, kind)
    assert value == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(gradient, student.grad)


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_heads_gradient_is_autograds(softcap):
    torch.manual_seed(0)
    from cluster.trio.teacher import Head

    head = Head(torch.randn(30, 8), softcap)
    hidden = torch.randn(4, 8, requires_grad=True)
    logits = head.logits(hidden)
    at_logits = torch.randn(4, 30)
    (logits * at_logits).sum().backward()
    torch.testing.assert_close(head.gradient(logits.detach(), at_logits), hidden.grad)


def test_a_distilled_draft_is_nearer_to_full(idle_dir, corpus_dir, tmp_path):
    before, after = distil(distil_job(idle_dir, corpus_dir, tmp_path / "draft.json"), Counting())
    assert after.kl < 0.8 * before.kl
    assert after.coupling > before.coupling


def test_a_healed_slim_is_nearer_to_full(idle_dir, corpus_dir, tmp_path):
    before, after = heal(heal_job(idle_dir, corpus_dir, tmp_path / "slim.json"), Counting())
    assert after.kl < 0.8 * before.kl
    assert after.coupling > before.coupling


def test_what_is_written_is_what_was_trained(idle_dir, corpus_dir, tmp_path):
    out = tmp_path / "slim.json"
    _, after = heal(heal_job(idle_dir, corpus_dir, out), Counting())
    route = read_route(out)
    served = load_sliced(
        idle_dir, route, torch.float32, torch.device("cpu"), tmp_path / str(route.delta)
    )
    served.set_attn_implementation("sdpa")
    head = load_head(idle_dir, torch.bfloat16)
    from cluster.trio.learn.student import whole

    chats = Corpus(corpus_dir).read(1)
    again = held_out(whole(served, head), head, chats, 1.0)
    assert again.kl == pytest.approx(after.kl, rel=0.05)


def test_a_distilled_draft_is_served_with_its_short_head(idle_dir, corpus_dir, tmp_path):
    out = tmp_path / "draft.json"
    distil(distil_job(idle_dir, corpus_dir, out, weights="int8"), Counting())
    spec = EngineSpec(
        tiers={Tier.DRAFT: TierSource(str(idle_dir), str(out))},
        dtype="float32",
        device="cpu",
        num_slots=1,
        slot_tokens=64,
        token_budget=32,
        vocab_size=VOCAB,
    )
    engine = build_engines(spec)[Tier.DRAFT]
    tokens = Corpus(corpus_dir).read(1).ids[0, :32].tolist()
    [chosen] = engine.extend([Extend(context("s", tokens), 32, 8)])
    assert len(chosen) == 8
    assert all(0 <= token < VOCAB for token in chosen)


def reading_job(model: Path, corpus: Path, out: Path) -> DistilJob:
    """Goes on from a draft that reads nothing."""
    start = out.with_name("start.json")
    if not start.exists():
        distil(distil_job(model, corpus, start), Counting())
    return distil_job(model, corpus, out, start=start, reads=True)


def test_a_draft_that_begins_to_read_begins_where_the_blind_one_was(idle_dir, corpus_dir, tmp_path):
    _, blind = distil(distil_job(idle_dir, corpus_dir, tmp_path / "start.json"), Counting())
    before, _ = distil(reading_job(idle_dir, corpus_dir, tmp_path / "draft.json"), Counting())
    # Rounding of the int8 delta apart.
    assert before.kl == pytest.approx(blind.kl, rel=0.05)


def test_a_draft_learns_to_read(idle_dir, corpus_dir, tmp_path):
    job = distil_job(idle_dir, corpus_dir, tmp_path / "draft.json", reads=True)
    before, after = distil(job, Counting())
    assert after.kl < 0.9 * before.kl
    reader = load_file(tmp_path / "draft.reader.safetensors")
    assert reader["features.weight"].any()


def test_a_draft_that_reads_is_served_beside_full(idle_dir, corpus_dir, tmp_path):
    out = tmp_path / "draft.json"
    distil(reading_job(idle_dir, corpus_dir, out), Counting())
    tiers = {
        Tier.FULL: TierSource(str(idle_dir)),
        Tier.DRAFT: TierSource(str(idle_dir), str(out)),
    }
    made = build_engines(EngineSpec(tiers, "float32", "cpu", 1, 64, 32))
    asked = context("s", Corpus(corpus_dir).read(1).ids[0, :32].tolist())
    made[Tier.FULL].extend([Extend(asked, 31, 1)])
    [proposed] = made[Tier.DRAFT].propose([Propose(asked, 6)])
    assert len(proposed) == 6


@pytest.mark.parametrize(
    ("job_of", "run"), [(distil_job, distil), (heal_job, heal), (reading_job, distil)]
)
def test_a_killed_job_goes_on_where_it_was(idle_dir, corpus_dir, tmp_path, job_of, run):
    whole, broken = tmp_path / "whole.json", tmp_path / "broken.json"
    run(job_of(idle_dir, corpus_dir, whole), Counting())
    with pytest.raises(Killed):
        run(job_of(idle_dir, corpus_dir, broken), Counting(last=12))
    assert not broken.exists()
    watch = Counting()
    run(job_of(idle_dir, corpus_dir, broken), watch)
    # The step that was cut had not been saved yet.
    assert watch.steps == STEPS - 11
    assert broken.with_suffix(".safetensors").read_bytes() == (
        whole.with_suffix(".safetensors").read_bytes()
    )


def test_a_checkpoint_of_another_schedule_is_refused(idle_dir, corpus_dir, tmp_path):
    out = tmp_path / "draft.json"
    distil(distil_job(idle_dir, corpus_dir, out), Counting())
    other = Schedule(tokens=SCHEDULE.tokens, batch=CHATS, rate=1e-4)
    job = distil_job(idle_dir, corpus_dir, out, other)
    with pytest.raises(ModelError, match=r"rate 0\.003, not 0\.0001"):
        distil(job, Counting())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kept": (5, 6)}, r"kept_layers \[0, 6\], not \[5, 6\]"),
        ({"kept": (0, 1, 6)}, r"kept_layers \[0, 6\], not \[0, 1, 6\]"),
        ({"reads": True}, "reads_full False, not True"),
        ({"shortlist": 100}, "shortlist 200, not 100"),
    ],
)
def test_a_draft_never_goes_on_from_a_checkpoint_of_another(
    idle_dir, corpus_dir, tmp_path, settings, told
):
    job = distil_job(idle_dir, corpus_dir, tmp_path / "draft.json")
    distil(job, Counting())
    written = job.course.out.read_bytes()
    course = replace(job.course, shortlist=settings.pop("shortlist", 200))
    with pytest.raises(ModelError, match=f"was begun with {told}; delete it"):
        distil(replace(job, course=course, **settings), Counting())
    assert job.course.out.read_bytes() == written


def test_a_draft_never_goes_on_from_another_start(idle_dir, corpus_dir, tmp_path):
    out = tmp_path / "draft.json"
    distil(reading_job(idle_dir, corpus_dir, out), Counting())
    blind = distil_job(idle_dir, corpus_dir, out, reads=True)
    with pytest.raises(ModelError, match=r"was begun with start '\w+', not None"):
        distil(blind, Counting())


def test_a_slim_never_goes_on_from_a_checkpoint_of_another_rank(idle_dir, corpus_dir, tmp_path):
    job = heal_job(idle_dir, corpus_dir, tmp_path / "slim.json")
    heal(job, Counting())
    with pytest.raises(ModelError, match="was begun with rank 8, not 4"):
        heal(replace(job, rank=4), Counting())


def test_a_torn_checkpoint_is_told_in_one_line(idle_dir, corpus_dir, tmp_path):
    job = distil_job(idle_dir, corpus_dir, tmp_path / "draft.json")
    job.course.out.with_suffix(".ckpt").write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be read; delete it to begin anew"):
        distil(job, Counting())


def test_whoever_may_read_the_route_may_read_its_tensors(idle_dir, corpus_dir, tmp_path):
    out = tmp_path / "draft.json"
    distil(distil_job(idle_dir, corpus_dir, out, reads=True), Counting())
    files = [out, *out.parent.glob("draft*.safetensors"), *corpus_dir.glob("*.safetensors")]
    assert {file.stat().st_mode for file in files} == {out.stat().st_mode}


@pytest.mark.parametrize("error", [OSError("full"), RuntimeError("pos"), SafetensorError("full")])
def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path, error):
    def write() -> None:
        with written_whole(tmp_path / "draft.ckpt") as part:
            part.write_bytes(b"half")
            raise error

    with pytest.raises(ModelError, match=r"draft\.ckpt: cannot be written, [\d,]+ MB are free"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_text_of_another_model_is_refused(corpus_dir, tmp_path):
    from tests.engine.toys import save_toy

    other = save_toy(tmp_path / "other", "llama", seed=9)
    with pytest.raises(ModelError, match="written by model"):
        distil(distil_job(other, corpus_dir, tmp_path / "draft.json"), Counting())


def test_a_draft_keeps_the_first_layers_and_the_last():
    assert default_layers(30, 3) == (0, 1, 29)
    assert default_layers(30, 1) == (29,)
    with pytest.raises(ModelError, match="1 to 30"):
        default_layers(30, 31)


def test_a_batch_larger_than_a_shard_is_refused(idle_dir, corpus_dir, tmp_path):
    large = Schedule(tokens=1000, batch=CHATS + 1)
    job = distil_job(idle_dir, corpus_dir, tmp_path / "draft.json", large)
    with pytest.raises(
        ModelError, match=f"a batch of {CHATS + 1}, .* give --batch {CHATS} or less"
    ):
        distil(job, Counting())


@pytest.mark.parametrize(
    ("command", "options", "told"),
    [
        ("distill", ["--weights", "int4"], "--weights int4: give int8"),
        ("distill", ["--rate", "-1"], "--rate -1"),
        ("distill", ["--loss", "mse"], "--loss mse: give kl, tv, mixed"),
        ("distill", ["--kept", "0,x"], "--kept 0,x"),
        ("distill", ["--device", "nowhere"], "--device nowhere"),
        ("corpus", ["--openers", "/nowhere.txt"], "--openers /nowhere.txt"),
        ("heal", ["--temperature", "0"], "--temperature 0: give a number above 0"),
        ("distill", ["--temperature", "-1"], "--temperature -1"),
        ("corpus", ["--dtype", "int3"], "--dtype int3: give one of auto, float32"),
    ],
)
def test_a_bad_option_is_named(idle_dir, corpus_dir, tmp_path, command, options, told):
    where = ["--corpus", str(corpus_dir)] if command in ("distill", "heal") else []
    out = ["--out", str(tmp_path / "out.json")]
    result = CliRunner().invoke(cli, [command, str(idle_dir), *where, *out, *options])
    assert isinstance(result.exception, ConfigError)
    assert told in str(result.exception)
    assert not (tmp_path / "out.json").exists()


def test_commands_tell_what_they_wrote_as_one_json_line(idle_dir, corpus_dir, tmp_path):
    out = tmp_path / "draft.json"
    given = ["--corpus", str(corpus_dir), "--out", str(out), "--layers", "2", "--shortlist", "64"]
    given += ["--tokens", str(CHATS * TOKENS), "--batch", str(CHATS), "--threads", "1"]
    done = CliRunner().invoke(cli, ["distill", str(idle_dir), *given, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["route"] == str(out)
    assert told["figures"] == dict(read_route(out).figures)
    assert "before: agreement" in done.stderr
