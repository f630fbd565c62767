"""What a route search found: the route file, a table, one JSON line and a plot."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from actors.engine.route import ModelError, Route
from cluster.console.table import table
from cluster.quality.figures import frontier
from cluster.trio.likeness import Likeness
from cluster.trio.routes.job import Found
from cluster.trio.routes.journal import Entry
from cluster.trio.routes.ledger import Scale

_MEASURES = tuple(field.name for field in fields(Likeness) if field.name != "rows")


def route_of(found: Found, seed: int) -> Route:
    """The winner with its figures, all but `candidates` and `seed` from held-out rows."""
    best, candidates = found.best.candidate, found.scale.candidates
    figures = asdict(found.best.likeness) | asdict(found.scale.predict(found.best))
    more = {
        "candidates": len(found.searched),
        "seed": seed,
        "kept_share": candidates.share(best.mask),
    }
    return candidates.route(best).model_copy(
        update={"figures": {k: float(v) for k, v in (figures | more).items()}}
    )


def write(route: Route, path: Path) -> None:
    """Write a route file. Raises ModelError."""
    try:
        path.write_text(route.model_dump_json(indent=2, exclude_none=True) + "\n")
    except OSError as error:
        raise ModelError(f"--out {path}: {error.strerror}") from None


def rows_of(found: Found) -> Iterator[tuple[str, dict[str, float]]]:
    """(name, figures on held-out rows) of the winner and its rivals; of several the mean and
    the best by what the search minimises."""
    scale = found.scale
    yield _told(f"route ({_origin(found)})", found.best), _figures(scale, found.best)
    for made, entries in found.rivals.items():
        name, told = _told(made, entries[0]), [_figures(scale, entry) for entry in entries]
        if len(entries) == 1:
            yield name, told[0]
            continue
        yield f"{name}, mean of {len(told)}", {k: fmean(t[k] for t in told) for k in told[0]}
        yield f"{name}, best of {len(told)}", _figures(scale, min(entries, key=scale.value))


def render(found: Found) -> str:
    """The table of the winner and its rivals."""
    kept = len(found.scale.candidates.space.kept_layers(found.best.candidate.mask))
    headings = ("mask", *_figures(found.scale, found.best))
    rows = [(name, *(f"{v:.3f}" for v in figures.values())) for name, figures in rows_of(found)]
    console = Console(file=io.StringIO(), width=120)
    console.print(f"{kept} layers, {found.best.likeness.rows} held-out rows\n", markup=False)
    console.print(table(headings, rows))
    return console.file.getvalue().rstrip()  # pyright: ignore[reportAttributeAccessIssue]


def to_json(found: Found, route: Route) -> str:
    """One line: the route, and the table."""
    fields = route.model_dump(mode="json", exclude_none=True)
    return json.dumps({"route": fields, "held_out": dict(rows_of(found))})


def draw(found: Found, path: Path) -> None:
    """Write a PNG of every candidate. Raises ModelError."""
    figure = Figure(figsize=(8, 5.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    points = [_point(found.scale, entry) for entry in found.searched]
    kinds = [(_told(entry.kind, entry), entry.int8) for entry in found.searched]
    for kind, int8 in dict.fromkeys(kinds):
        of_kind = [point for point, told in zip(points, kinds, strict=True) if told[0] == kind]
        marker = "^" if int8 else "o"
        axes.scatter(*zip(*of_kind, strict=True), s=22, alpha=0.6, marker=marker, label=kind)
    edge = sorted(points[i] for i in frontier([(-cost, agreement) for cost, agreement in points]))
    axes.plot(*zip(*edge, strict=True), color="0.5", linewidth=1.2, zorder=1, label="frontier")
    for (name, entries), marker in zip(found.rivals.items(), "sXDP", strict=False):
        told = [_point(found.scale, entry) for entry in entries]
        axes.scatter(
            *zip(*told, strict=True),
            marker=marker,
            s=60,
            facecolor="none",
            edgecolor="black",
            label=f"{_told(name, entries[0])}, held out",
        )
    best = _point(found.scale, found.best)
    label = f"{_told('route', found.best)}, held out"
    axes.scatter(*best, marker="*", s=190, color="tab:red", zorder=4, label=label)
    axes.set_xlabel("a step of slim over one of full (less is better)")
    axes.set_ylabel("argmax agreement with full")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise ModelError(f"--plot {path}: {error.strerror}") from None


def _point(scale: Scale, entry: Entry) -> tuple[float, float]:
    return scale.predict(entry).slim_cost, entry.likeness.agreement


def _origin(found: Found) -> str:
    return next(e.kind for e in found.searched if e.candidate == found.best.candidate)


def _told(name: str, entry: Entry) -> str:
    return f"{name}, int8" if entry.int8 else name


def _figures(scale: Scale, entry: Entry) -> dict[str, float]:
    predicted = scale.predict(entry)
    times: Sequence[tuple[str, float]] = (
        ("slim_cost", predicted.slim_cost),
        ("three_tier_ms", 1000 * predicted.three_tier_s),
    )
    return {name: getattr(entry.likeness, name) for name in _MEASURES} | dict(times)
