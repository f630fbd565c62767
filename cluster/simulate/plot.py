"""A simulation over time as a picture: use, workers and prices of the pools, plans, sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cluster.simulate.keeper import Moment
from cluster.simulate.run import Outcome
from policies.vocabulary import PlanKind

_COLOURS = {"large": "tab:red", "cheap": "tab:blue"}
_PLANS = {
    PlanKind.OFF: "0.6",
    PlanKind.TWO_TIER: "tab:orange",
    PlanKind.THREE_TIER: "tab:blue",
}


def draw(outcomes: Sequence[Outcome], title: str, path: Path) -> None:
    """Write a PNG; the first outcome is the one that is shown over time. Raises OSError."""
    figure = Figure(figsize=(15, 7.2), dpi=70, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(2, 3)
    moments = outcomes[0].moments
    _pools(grid[0][0], moments, "share of the time that it computes", lambda m: m.util_frac)
    _pools(grid[0][1], moments, "workers", lambda m: m.workers)
    _pools(grid[0][2], moments, "price of a second", lambda m: m.price)
    _plans(grid[1][0], moments)
    _sessions(grid[1][1], outcomes)
    _costs(grid[1][2], outcomes)
    figure.savefig(path, format="png")


def _pools(
    axes: Any, moments: Sequence[Moment], label: str, value: Callable[[Moment], Mapping[str, float]]
) -> None:
    times = [moment.at_s for moment in moments]
    for pool, colour in _COLOURS.items():
        if pool in value(moments[0]):
            axes.plot(times, [value(m)[pool] for m in moments], color=colour, label=pool, lw=1)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    _time_axis(axes)


def _plans(axes: Any, moments: Sequence[Moment]) -> None:
    """What was committed between two looks, by the kind of plan."""
    times = [moment.at_s for moment in moments[1:]]
    rates = [
        [
            (b.tokens_by.get(kind, 0) - a.tokens_by.get(kind, 0)) / (b.at_s - a.at_s)
            for a, b in pairwise(moments)
        ]
        for kind in _PLANS
    ]
    axes.stackplot(times, *rates, labels=[str(k) for k in _PLANS], colors=list(_PLANS.values()))
    axes.set_ylabel("tokens/s by plan")
    _time_axis(axes)


def _sessions(axes: Any, outcomes: Sequence[Outcome]) -> None:
    for found in outcomes:
        times = [moment.at_s for moment in found.moments]
        axes.plot(times, [m.running + m.waiting for m in found.moments], label=found.name, lw=1)
    axes.set_ylabel("sessions running and waiting")
    _time_axis(axes)


def _costs(axes: Any, outcomes: Sequence[Outcome]) -> None:
    """Price against latency."""
    for found in outcomes:
        if found.cost_per_mtok is not None:
            point = axes.plot(1e3 * found.token_s.p50, found.cost_per_mtok, "o", label=found.name)
            whisker = [1e3 * found.token_s.p50, 1e3 * found.token_s.p99]
            axes.plot(whisker, [found.cost_per_mtok] * 2, color=point[0].get_color(), lw=1)
    axes.set_xlabel("ms a token, p50 to p99")
    axes.set_ylabel("price of a million tokens")
    axes.margins(0.2)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)


def _time_axis(axes: Any) -> None:
    axes.set_xlabel("virtual seconds")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
