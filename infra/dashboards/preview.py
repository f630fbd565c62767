"""`python -m infra.dashboards.preview URL FOLDER`: draws the dashboards without Grafana.

Each board becomes a picture in FOLDER, its charts drawn by matplotlib from what the Prometheus
at URL answers to their queries over the last MINUTES. It shows data and queries, not Grafana.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from infra.dashboards.boards import BOARDS
from infra.dashboards.charts import PREFIXES, Board, Chart
from infra.dashboards.prometheus import Prometheus, Series

_COLUMNS = 24
_POINTS = 200
_MOST_LEGENDS = 8
_UNITS: dict[str, Callable[[float], str]] = {
    "percentunit": lambda value: f"{100 * value:.3g} %",
    "percent": lambda value: f"{value:.3g} %",
    "s": lambda value: f"{value:.3g} s" if abs(value) >= 1 else f"{1000 * value:.3g} ms",
    "bytes": lambda value: f"{value / 2**30:.3g} GiB",
    "currencyUSD": lambda value: f"${value:.4g}",
    "watt": lambda value: f"{value:.3g} W",
}


def draw(board: Board, source: Prometheus, begin_s: float, end_s: float, path: Path) -> None:
    """One board into one PNG."""
    from matplotlib.figure import Figure

    lines = _lines_of(board)
    heights = [0.12 if isinstance(line, str) else 0.6 if _flat(line) else 1.0 for line in lines]
    figure = Figure(figsize=(15, 2.9 * sum(heights) + 0.6), layout="constrained", dpi=80)
    figure.suptitle(board.title, fontsize=14, weight="bold")
    grid = figure.add_gridspec(len(lines), _COLUMNS, height_ratios=heights)
    step_s = max((end_s - begin_s) / _POINTS, 1.0)
    for place, line in enumerate(lines):
        if isinstance(line, str):
            heading = figure.add_subplot(grid[place, :])
            heading.axis("off")
            heading.text(0, 0.2, line, fontsize=12, weight="bold", color="#555")
            continue
        column = 0
        for chart in line:
            axes = figure.add_subplot(grid[place, column : column + chart.width])
            column += chart.width
            _draw_chart(axes, chart, source.series(chart, begin_s, end_s, step_s))
    figure.savefig(path)


def _lines_of(board: Board) -> list[str | list[Chart]]:
    """Headings, and charts side by side."""
    lines: list[str | list[Chart]] = []
    for row in board.rows:
        lines.append(row.title)
        beside: list[Chart] = []
        for chart in row.charts:
            if sum(other.width for other in beside) + chart.width > _COLUMNS:
                lines.append(beside)
                beside = []
            beside.append(chart)
        lines.append(beside)
    return lines


def _flat(charts: list[Chart]) -> bool:
    return all(chart.kind == "number" for chart in charts)


def _draw_chart(axes: Any, chart: Chart, series: list[Series]) -> None:
    axes.set_title(chart.title, fontsize=9, loc="left")
    kinds = {"number": _number, "bars": _bars, "stack": _stack}
    kinds.get(chart.kind, _lines)(axes, chart, series)
    axes.tick_params(labelsize=7)


def _say(chart: Chart, value: float) -> str:
    return _UNITS.get(chart.unit, lambda plain: f"{plain:.4g}")(value)


def _number(axes: Any, chart: Chart, series: list[Series]) -> None:
    axes.axis("off")
    said = [f"{_say(chart, s.points[-1][1])}" for s in series]
    names = [s.legend for s in series]
    shown = said[0] if len(said) == 1 else "\n".join(map(": ".join, zip(names, said, strict=True)))
    size = 20 if len(said) == 1 else 11
    axes.text(0.02, 0.4, shown, fontsize=size, color="#1a7f37", va="center")


def _bars(axes: Any, chart: Chart, series: list[Series]) -> None:
    last = sorted(series, key=lambda s: _edge(s.legend))
    axes.barh([s.legend for s in last], [s.points[-1][1] for s in last], color="#5794f2")


def _edge(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        return math.inf


def _lines(axes: Any, chart: Chart, series: list[Series]) -> None:
    for s in series:
        axes.plot([_at(x) for x, _ in s.points], [y for _, y in s.points], lw=1, label=s.legend)
    _dress(axes, chart, series)


def _stack(axes: Any, chart: Chart, series: list[Series]) -> None:
    moments = sorted({x for s in series for x, _ in s.points})
    known = [dict(s.points) for s in series]
    rows = [[_real(points.get(x, 0.0)) for x in moments] for points in known]
    axes.stackplot([_at(x) for x in moments], rows, labels=[s.legend for s in series], alpha=0.7)
    _dress(axes, chart, series)


def _real(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _dress(axes: Any, chart: Chart, series: list[Series]) -> None:
    from matplotlib.dates import DateFormatter

    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.yaxis.set_major_formatter(lambda value, _: _say(chart, value))
    axes.grid(alpha=0.3)
    values = [y for s in series for _, y in s.points if math.isfinite(y)]
    if not values or min(values) >= 0:
        axes.set_ylim(bottom=0)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles[:_MOST_LEGENDS], labels[:_MOST_LEGENDS], fontsize=6, ncols=2)


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds)


def main() -> int:
    """Exit status 1 where Prometheus does not answer."""
    parser = argparse.ArgumentParser(prog="python -m infra.dashboards.preview")
    parser.add_argument("url", help="of Prometheus, as http://127.0.0.1:9090")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--prefix", choices=PREFIXES, default=PREFIXES[0])
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    source, now_s = Prometheus(asked.url, asked.prefix), time.time()
    for board in BOARDS:
        path = asked.folder / f"{board.name}.png"
        try:
            draw(board, source, now_s - 60 * asked.minutes, now_s, path)
        except (httpx.HTTPError, ValueError) as error:
            print(f"{asked.url}: {error}", file=sys.stderr)
            return 1
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
