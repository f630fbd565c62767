"""Advice as a picture: tokens/s by load, break-even of slim, price by load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from policies.advice import (
    KINDS,
    Bounds,
    LoadAdvice,
    ModelAt,
    PlanAdvice,
    break_even_a2,
    with_slim_cost,
)
from policies.vocabulary import PlanKind

_COLOURS = {
    PlanKind.OFF: "0.45",
    PlanKind.TWO_TIER: "tab:orange",
    PlanKind.THREE_TIER: "tab:blue",
}
_SLIM_COSTS = tuple(0.05 * step for step in range(1, 25))


def draw(
    loads: Sequence[LoadAdvice], model_at: ModelAt, bounds: Bounds, title: str, path: Path
) -> None:
    """Write a PNG. Raises OSError where the file cannot be written."""
    figure = Figure(figsize=(15, 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    speed, slim, price = figure.subplots(1, 3)
    _by_load(speed, loads, lambda plan: plan.tokens_per_s)
    speed.set_ylabel("tokens/s, one worker a pool")
    _break_even(slim, loads, model_at, bounds)
    if any(plan.price_per_mtok is not None for load in loads for plan in load.plans):
        _by_load(price, loads, lambda plan: plan.price_per_mtok)
        price.set_ylabel("price of a million tokens, pools always busy")
    else:
        price.text(0.5, 0.5, "no prices given", ha="center", transform=price.transAxes)
        price.set_axis_off()
    figure.savefig(path, format="png")


def _by_load(
    axes: Any, loads: Sequence[LoadAdvice], value: Callable[[PlanAdvice], float | None]
) -> None:
    for kind in KINDS:
        found = [(a.load, value(plan)) for a in loads if (plan := a.of(kind)) is not None]
        points = [(load, y) for load, y in found if y is not None]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, marker="o", markersize=4, color=_COLOURS[kind], label=str(kind))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("concurrent sessions")
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize=8)


def _break_even(axes: Any, loads: Sequence[LoadAdvice], model_at: ModelAt, bounds: Bounds) -> None:
    """Above its line slim pays at that load; the dots are this trio's own slim."""
    told = [advice for advice in loads if advice.slim_cost is not None]
    if not told:
        axes.text(0.5, 0.5, "no slim in this trio", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    for at in sorted({0, len(told) // 2, len(told) - 1}):
        advice = told[at]
        model = model_at(advice.load)
        found = [
            (cost, break_even_a2(with_slim_cost(model, cost), advice.load, bounds))
            for cost in _SLIM_COSTS
        ]
        points = [(cost, a2) for cost, a2 in found if a2 is not None]
        xs, ys = zip(*points, strict=True) if points else ((), ())
        [line] = axes.plot(xs, ys, label=f"{advice.load} sessions")
        axes.plot(
            [advice.slim_cost], [model.rates.slim_full], "o", color=line.get_color(), markersize=7
        )
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("cost of slim's forward over full's")
    axes.set_ylabel("break-even a2 (slim pays above)")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
