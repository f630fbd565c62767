"""The job of `python -m cluster heal`: a routed slim learns to choose as full does again.

Thin matrices beside the kept layers' projections learn full's distribution on text that full
wrote itself; the engine adds their products to the weights at load. It knows the text on disk
and the training loop; no server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.engine.loader import load_config
from actors.engine.route import fingerprint, read_route
from cluster.trio.arithmetic import fast_dtype
from cluster.trio.learn.distil import shortlist_of
from cluster.trio.learn.report import Watch, figures_of, write_route
from cluster.trio.learn.student import load_student, low_rank, low_rank_delta, write_delta
from cluster.trio.learn.train import Schedule, check_batch, held_out, train
from cluster.trio.likeness import Likeness
from cluster.trio.teacher import load_head
from cluster.trio.text.corpus import Corpus

_STILL_TRUE = ("slim_cost", "kept_share", "candidates")
"""What the search found that healing does not change."""


@dataclass(frozen=True, slots=True)
class HealJob:
    """The route at `route` is healed and written to `out`, its delta beside it. The loss is over
    the `shortlist` most frequent ids of the text; the figures are over all ids."""

    model_dir: Path
    corpus: Path
    route: Path
    out: Path
    rank: int
    schedule: Schedule
    shortlist: int = 8192
    held_out_chats: int = 64
    shards: int | None = None
    temperature: float = 0.8
    device: str = "cpu"


def heal(job: HealJob, watch: Watch) -> tuple[Likeness, Likeness]:
    """Train and write the healed route; how like full it was on held-out text before and after."""
    route = read_route(job.route)
    name = fingerprint(job.model_dir)
    config = load_config(job.model_dir)
    route.check(name, config.num_hidden_layers, job.route)
    corpus = Corpus(job.corpus)
    corpus.check(name)
    shards, held = corpus.split(job.shards)
    check_batch(corpus, shards, job.schedule.batch)
    ids, _ = shortlist_of(corpus, shards, config.vocab_size, job.shortlist)
    head = load_head(job.model_dir, fast_dtype(job.device))
    short = head.of(ids)
    # The delta that a route has already is healed away with the rest: it begins from full's
    # own weights, as its new delta will be added to those.
    bare = load_student(job.model_dir, route, job.device)
    student = low_rank(bare, short, job.rank, job.schedule.seed)
    judged = student.with_head(head)
    chats = corpus.read(held).take(slice(job.held_out_chats))
    before = held_out(judged, head, chats, job.temperature)
    watch.before(before)
    train(student, short, corpus, shards, job.schedule, job.out.with_suffix(".ckpt"), watch.step)
    after = held_out(judged, head, chats, job.temperature)
    watch.after(after)
    delta = job.out.with_suffix(".safetensors")
    write_delta(low_rank_delta(student, route), delta)
    kept = {name: route.figures[name] for name in _STILL_TRUE if name in route.figures}
    figures = kept | figures_of(before, after, job.schedule)
    write_route(route.model_copy(update={"delta": delta.name, "figures": figures}), job.out)
    return before, after
