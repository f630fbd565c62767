"""The Pareto plot: agreement with full against speed, and against full passes per token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cluster.quality.figures import ArmFigures, frontier

_COLOURS = {"via": "tab:blue", "cascade": "tab:orange"}
_EXACT = "tab:green"
_NEAR = 0.015
"""Points closer than this share of a panel, both ways, share one text."""


def draw(arms: Sequence[ArmFigures], path: Path) -> None:
    """Write a PNG. Raises OSError where the file cannot be written."""
    figure = Figure(figsize=(11, 4.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    first = arms[0].mode
    speeds = [(arm, s, arm.agreement) for arm in arms if (s := arm.speedup) is not None]
    passes = [(a, p, a.agreement) for a in arms if (p := a.full_passes_per_token) is not None]
    _panel(left, speeds, f"tokens/s over {first}", more_is_better=True)
    _panel(right, passes, "passes of the full model per token", more_is_better=False)
    left.set_ylabel("tokens that are full's own choice")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, format="png")


def _panel(
    axes: Any,
    points: Sequence[tuple[ArmFigures, float, float | None]],
    label: str,
    *,
    more_is_better: bool,
) -> None:
    told = [(arm, x, y) for arm, x, y in points if y is not None]
    if not told:
        return
    sign = 1 if more_is_better else -1
    best = frontier([(sign * x, y) for _, x, y in told])
    edge = [told[i][1:] for i in best]
    axes.plot(*zip(*edge, strict=True), color="0.6", linewidth=1.2, zorder=1, label="frontier")
    seen: set[str] = set()
    for index, (arm, x, y) in enumerate(told):
        mode = arm.mode.split()[0]
        kind = mode if mode in _COLOURS else "exact"
        axes.scatter(
            x,
            y,
            s=46,
            color=_COLOURS.get(kind, _EXACT),
            edgecolor="black" if index in best else "none",
            zorder=3,
            label=None if kind in seen else kind,
        )
        seen.add(kind)
    axes.set_xlabel(label + (" (more is better)" if more_is_better else " (fewer is better)"))
    axes.grid(alpha=0.25)
    axes.margins(0.2, 0.26)
    _name(axes, told)


def _name(axes: Any, points: Sequence[tuple[ArmFigures, float, float]]) -> None:
    """Slanted, so that neighbours of one height do not overlap; one text for equal points."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    together: list[list[tuple[ArmFigures, float, float]]] = []
    for point in points:
        _, x, y = point
        for group in together:
            _, x0, y0 = group[0]
            if abs(x - x0) < _NEAR * (right - left) and abs(y - y0) < _NEAR * (high - low):
                group.append(point)
                break
        else:
            together.append([point])
    for group in together:
        axes.annotate(
            ", ".join(arm.mode for arm, _, _ in group),
            group[0][1:],
            textcoords="offset points",
            xytext=(3, 5),
            rotation=28,
            rotation_mode="anchor",
            fontsize=8,
            bbox={"facecolor": "white", "linewidth": 0, "alpha": 0.75, "pad": 0.5},
        )
