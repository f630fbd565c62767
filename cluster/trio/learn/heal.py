"""The job of `python -m cluster heal`: a routed slim learns to choose as full does again.

Thin matrices beside the kept layers' projections learn full's distribution on text that full
wrote itself; the engine adds their products to the weights at load. It knows no server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.engine.route import read_route
from cluster.trio.arithmetic import fast_dtype
from cluster.trio.learn.course import Course, teach, text_of
from cluster.trio.learn.report import Watch, figures_of, write_route
from cluster.trio.learn.student import load_student, low_rank, low_rank_delta
from cluster.trio.likeness import Likeness
from cluster.trio.teacher import load_head
from cluster.trio.tensors import write_tensors

_STILL_TRUE = ("slim_cost", "kept_share", "candidates")
"""What the search found that healing does not change."""


@dataclass(frozen=True, slots=True)
class HealJob:
    """The route at `route` is healed, its delta written beside the healed one. The figures are
    over all ids."""

    course: Course
    route: Path
    rank: int


def heal(job: HealJob, watch: Watch) -> tuple[Likeness, Likeness]:
    """Train and write the healed route; how like full it was on held-out text before and after."""
    course, route = job.course, read_route(job.route)
    text = text_of(course)
    route.check(text.fingerprint, text.num_layers, job.route)
    head = load_head(course.model_dir, fast_dtype(course.device))
    # The delta that a route has already is healed away with the rest: it begins from full's
    # own weights, as its new delta will be added to those.
    bare = load_student(course.model_dir, route, course.device)
    student = low_rank(bare, head.of(text.ids), job.rank, course.schedule.seed)
    cut = route.model_dump(include={"kept_layers", "no_attention", "no_mlp"})
    begun_with = {name: list(layers) for name, layers in cut.items()} | {"rank": job.rank}
    before, after = teach(course, text, student, head, watch, begun_with)
    delta = course.out.with_suffix(".safetensors")
    write_tensors(low_rank_delta(student, route), delta)
    kept = {name: route.figures[name] for name in _STILL_TRUE if name in route.figures}
    figures = kept | figures_of(before, after, course.schedule)
    write_route(route.model_copy(update={"delta": delta.name, "figures": figures}), course.out)
    return before, after
