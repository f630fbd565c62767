"""The job of `python -m cluster distill`: a draft of a few of full's layers with a short head.

The draft is a route of full: kept layers, a delta with what training changed, and a shortlist
of the ids that its head knows. It knows no server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from actors.engine.build import CheckedRoute, checked_route
from actors.engine.lean import has_lean
from actors.engine.loader import load_config
from actors.engine.reader import Reader, load_reader
from actors.engine.route import ModelError, Route
from cluster.trio.arithmetic import fast_dtype
from cluster.trio.begun import content_of
from cluster.trio.learn.course import Course, teach, text_of
from cluster.trio.learn.report import Watch, figures_of, write_route
from cluster.trio.learn.student import (
    load_student,
    reader_tensors,
    reading,
    whole,
    whole_delta,
)
from cluster.trio.likeness import Likeness
from cluster.trio.teacher import load_head
from cluster.trio.tensors import write_tensors


@dataclass(frozen=True, slots=True)
class DistilJob:
    """`kept`: full's layers that the draft begins as; its head knows the course's shortlist.
    `start`: a draft's route to go on from instead of these. `reads`: it reads full's hidden
    states."""

    course: Course
    kept: tuple[int, ...]
    start: Path | None = None
    reads: bool = False
    weights: str | None = None


def default_layers(layers: int, keep: int) -> tuple[int, ...]:
    """The first ones and the last: what stands nearest to the ids on both sides."""
    if not 1 <= keep <= layers:
        raise ModelError(f"--layers {keep}: give 1 to {layers}")
    return (*range(keep - 1), layers - 1)


def distil(job: DistilJob, watch: Watch) -> tuple[Likeness, Likeness]:
    """Train and write the draft; how like full it was on held-out text before and after."""
    course, out = job.course, job.course.out
    begun = None if job.start is None else checked_route(course.model_dir, job.start)
    text = text_of(course, None if begun is None else begun.shortlist)
    name, layers = text.fingerprint, text.num_layers
    kept = job.kept if begun is None else begun.route.kept_layers
    route = Route(model_fingerprint=name, num_layers=layers, kept_layers=kept)
    route.check(name, layers, out)
    config = load_config(course.model_dir)
    if job.reads and not has_lean(config):
        raise ModelError(
            f"model {course.model_dir}: {config.model_type} has no drafts that read yet"
        )
    head = load_head(course.model_dir, fast_dtype(course.device)).of(text.ids)
    bare = load_student(course.model_dir, route, course.device)
    weights = {n: p.detach().clone() for n, p in whole(bare, head).trained.items()}
    model = bare
    if begun is not None:
        model = load_student(course.model_dir, route, course.device, begun.delta)
    student = whole(model, head)
    if job.reads:
        width, eps = config.hidden_size, config.rms_norm_eps
        reader = Reader(width, eps)
        if begun is not None and begun.reader is not None:
            reader = load_reader(begun.reader, width, eps, torch.float32, torch.device("cpu"))
        reader.requires_grad_().to(course.device)
        student = reading(student, model, reader)
    begun_with = {"kept_layers": list(kept), "reads_full": job.reads, "start": _digest(begun)}
    before, after = teach(course, text, student, head, watch, begun_with)
    delta, short = out.with_suffix(".safetensors"), out.with_suffix(".ids.safetensors")
    write_tensors(whole_delta(student, weights, route), delta)
    write_tensors({"ids": text.ids}, short)
    changed: dict[str, str | None] = {
        "delta": delta.name,
        "shortlist": short.name,
        "weights": job.weights,
    }
    if job.reads:
        file = out.with_suffix(".reader.safetensors")
        write_tensors(reader_tensors(student), file)
        changed |= {"reads": "full", "reader": file.name}
    figures = figures_of(before, after, course.schedule) | {"shortlist_covers": text.covered}
    write_route(route.model_copy(update=changed | {"figures": figures}), out)
    return before, after


def _digest(begun: CheckedRoute | None) -> str | None:
    """A name for what the draft begins with besides layers of full."""
    files = [] if begun is None else [file for file in (begun.delta, begun.reader) if file]
    return content_of(*files) if files else None
