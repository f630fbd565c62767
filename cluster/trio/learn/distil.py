"""The job of `python -m cluster distill`: a draft of a few of full's layers with a short head.

The draft is a route of full: kept layers, a delta with what training changed, and a shortlist
of the ids that its head knows. It knows the text on disk and the training loop; no server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from actors.engine.build import checked_route
from actors.engine.lean import has_lean
from actors.engine.loader import load_config
from actors.engine.reader import Reader, load_reader
from actors.engine.route import ModelError, Route, fingerprint
from cluster.trio.arithmetic import fast_dtype
from cluster.trio.learn.report import Watch, figures_of, write_route
from cluster.trio.learn.student import (
    load_student,
    reader_tensors,
    reading,
    whole,
    whole_delta,
    write_delta,
)
from cluster.trio.learn.train import Schedule, check_batch, held_out, train
from cluster.trio.likeness import Likeness
from cluster.trio.teacher import load_head
from cluster.trio.text.corpus import Corpus
from cluster.trio.text.lockstep import ANSWER


@dataclass(frozen=True, slots=True)
class DistilJob:
    """`kept`: full's layers that the draft begins as; `shortlist`: ids of its head. `start`: a
    draft's route to go on from instead of these. `reads`: it reads full's hidden states. The
    figures are on `held_out_chats` of the text's last shard; `shards` bounds the others."""

    model_dir: Path
    corpus: Path
    out: Path
    kept: tuple[int, ...]
    shortlist: int
    schedule: Schedule
    start: Path | None = None
    reads: bool = False
    weights: str | None = None
    held_out_chats: int = 64
    shards: int | None = None
    temperature: float = 0.8
    device: str = "cpu"


def default_layers(layers: int, keep: int) -> tuple[int, ...]:
    """The first ones and the last: what stands nearest to the ids on both sides."""
    if not 1 <= keep <= layers:
        raise ModelError(f"--layers {keep}: give 1 to {layers}")
    return (*range(keep - 1), layers - 1)


def distil(job: DistilJob, watch: Watch) -> tuple[Likeness, Likeness]:
    """Train and write the draft; how like full it was on held-out text before and after."""
    name = fingerprint(job.model_dir)
    corpus = Corpus(job.corpus)
    corpus.check(name)
    shards, held = corpus.split(job.shards)
    check_batch(corpus, shards, job.schedule.batch)
    config = load_config(job.model_dir)
    route = Route(model_fingerprint=name, num_layers=config.num_hidden_layers, kept_layers=job.kept)
    begun = None if job.start is None else checked_route(job.model_dir, job.start)
    if begun is not None:
        route = route.model_copy(update={"kept_layers": begun.route.kept_layers})
    route.check(name, config.num_hidden_layers, job.out)
    if job.reads and not has_lean(config):
        raise ModelError(f"model {job.model_dir}: {config.model_type} has no drafts that read yet")
    known = None if begun is None else begun.shortlist
    ids, covered = shortlist_of(corpus, shards, config.vocab_size, job.shortlist, known)
    head = load_head(job.model_dir, fast_dtype(job.device)).of(ids)
    bare = load_student(job.model_dir, route, job.device)
    weights = {n: p.detach().clone() for n, p in whole(bare, head).trained.items()}
    model = bare
    if begun is not None:
        model = load_student(job.model_dir, route, job.device, begun.delta)
    student = whole(model, head)
    if job.reads:
        width, eps = config.hidden_size, config.rms_norm_eps
        reader = Reader(width, eps)
        if begun is not None and begun.reader is not None:
            reader = load_reader(begun.reader, width, eps, torch.float32, torch.device("cpu"))
        reader.requires_grad_().to(job.device)
        student = reading(student, model, reader)
    chats = corpus.read(held).take(slice(job.held_out_chats))
    before = held_out(student, head, chats, job.temperature)
    watch.before(before)
    train(student, head, corpus, shards, job.schedule, job.out.with_suffix(".ckpt"), watch.step)
    after = held_out(student, head, chats, job.temperature)
    watch.after(after)
    delta, short = job.out.with_suffix(".safetensors"), job.out.with_suffix(".ids.safetensors")
    write_delta(whole_delta(student, weights, route), delta)
    save_file({"ids": ids}, short)
    changed: dict[str, str | None] = {
        "delta": delta.name,
        "shortlist": short.name,
        "weights": job.weights,
    }
    if job.reads:
        file = job.out.with_suffix(".reader.safetensors")
        write_delta(reader_tensors(student), file)
        changed |= {"reads": "full", "reader": file.name}
    figures = figures_of(before, after, job.schedule) | {"shortlist_covers": covered}
    write_route(route.model_copy(update=changed | {"figures": figures}), job.out)
    return before, after


def shortlist_of(
    corpus: Corpus, shards: list[int], vocab: int, size: int, known: torch.Tensor | None = None
) -> tuple[torch.Tensor, float]:
    """The `size` ids most frequent in the answers, ascending, or those `known` already; and the
    share of the answers' tokens that are among them."""
    counts = torch.zeros(vocab, dtype=torch.int64)
    for index in shards:
        said, writers = corpus.said(index)
        counts += torch.bincount(said[writers == ANSWER].long(), minlength=vocab)
    best = counts.topk(min(size, vocab)).indices.sort().values if known is None else known
    return best, (counts[best].sum() / counts.sum().clamp(min=1)).item()
