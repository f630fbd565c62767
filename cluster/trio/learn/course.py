"""What healing and distillation share: text to learn from, and figures before and after.

It knows the text on disk and the training loop; not what a student is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from actors.engine.loader import load_config
from actors.engine.route import fingerprint
from cluster.trio.learn.report import Watch
from cluster.trio.learn.train import Origin, Schedule, Student, check_batch, held_out, train
from cluster.trio.likeness import Likeness
from cluster.trio.teacher import Head
from cluster.trio.text.corpus import Corpus
from cluster.trio.text.lockstep import ANSWER


@dataclass(frozen=True, slots=True)
class Course:
    """A student of the model at `model_dir` learns from `corpus` and becomes the route file `out`.

    The loss is over the `shortlist` most frequent ids of the text; the figures are on
    `held_out_chats` of its last shard; `shards` bounds the others.
    """

    model_dir: Path
    corpus: Path
    out: Path
    schedule: Schedule
    shortlist: int = 8192
    held_out_chats: int = 64
    shards: int | None = None
    temperature: float = 0.8
    device: str = "cpu"


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A course's text, checked against its model. `shards` are learned from, `held` is not;
    `ids`: the shortlist (S,), which covers the share `covered` of the answers."""

    fingerprint: str
    num_layers: int
    corpus: Corpus
    shards: list[int]
    held: int
    ids: torch.Tensor
    covered: float


def text_of(course: Course, known: torch.Tensor | None = None) -> Text:
    """`known`: ids (S,) that are the shortlist already. Raises ModelError where there is no text
    of this model, or too little."""
    name, config = fingerprint(course.model_dir), load_config(course.model_dir)
    corpus = Corpus(course.corpus)
    corpus.check(name)
    shards, held = corpus.split(course.shards)
    check_batch(corpus, shards, course.schedule.batch)
    ids, covered = shortlist_of(corpus, shards, config.vocab_size, course.shortlist, known)
    return Text(name, config.num_hidden_layers, corpus, shards, held, ids, covered)


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


def teach(
    course: Course,
    text: Text,
    student: Student,
    head: Head,
    watch: Watch,
    settings: Mapping[str, Any],
) -> tuple[Likeness, Likeness]:
    """Train the student in place, or go on; how like full it chose on held-out text before and
    after, over the ids of `head`. `settings`: what else than the course makes the student what
    it is; one that began as another is not gone on with. Raises ModelError."""
    judged = student.with_head(head)
    chats = text.corpus.read(text.held).take(slice(course.held_out_chats))
    before = held_out(judged, head, chats, course.temperature)
    watch.before(before)
    checkpoint = course.out.with_suffix(".ckpt")
    learned = {"model": text.fingerprint, "text": text.corpus.digest(), "shortlist": len(text.ids)}
    origin = Origin(checkpoint, {**settings, **learned})
    train(student, student.head, text.corpus, text.shards, course.schedule, origin, watch.step)
    after = held_out(judged, head, chats, course.temperature)
    watch.after(after)
    return before, after
