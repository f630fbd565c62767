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
_WIDE, _TOP = 15.0, 0.6
_LEFT, _RIGHT, _BELOW, _ABOVE = 0.75, 0.1, 0.35, 0.3
"""Inches of the picture, and around each chart."""
_SOON_S = 900.0
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
    heights = [_height(line) for line in lines]
    tall = sum(heights) + _TOP
    figure = Figure(figsize=(_WIDE, tall), dpi=80)
    figure.text(0.01, 1 - 0.6 * _TOP / tall, board.title, fontsize=15, weight="bold")
    step_s = max((end_s - begin_s) / _POINTS, 1.0)
    top = tall - _TOP
    for line, height in zip(lines, heights, strict=True):
        top -= height
        if isinstance(line, str):
            figure.text(0.01, (top + 0.1) / tall, line, fontsize=12, weight="bold", color="#555")
            continue
        column = 0
        for chart in line:
            left, wide = _WIDE * column / _COLUMNS, _WIDE * chart.width / _COLUMNS
            column += chart.width
            inner = left + _LEFT, top + _BELOW, wide - _LEFT - _RIGHT, height - _BELOW - _ABOVE
            share = inner[0] / _WIDE, inner[1] / tall, inner[2] / _WIDE, inner[3] / tall
            axes = figure.add_axes(share)
            _draw_chart(axes, chart, source.series(chart, begin_s, end_s, step_s))
    figure.savefig(path)


def _height(line: str | list[Chart]) -> float:
    if isinstance(line, str):
        return 0.45
    return 1.3 if all(chart.kind == "number" for chart in line) else 2.9


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


def _draw_chart(axes: Any, chart: Chart, series: list[Series]) -> None:
    axes.set_title(chart.title, fontsize=9, loc="left")
    kinds = {"number": _number, "bars": _bars, "stack": _stack}
    kinds.get(chart.kind, _lines)(axes, chart, _worth_showing(chart, series))
    axes.tick_params(labelsize=7)


def _worth_showing(chart: Chart, series: list[Series]) -> list[Series]:
    """Without the zeros from before the first event where there has been one; of what tells
    the present, only what is still there."""
    begun = {s.query for s in series if s.labelled}
    known = [s for s in series if s.labelled or s.query not in begun]
    if chart.kind not in ("number", "bars"):
        return known
    last_s = max((s.points[-1][0] for s in known), default=0.0)
    return [s for s in known if s.points[-1][0] == last_s]


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
    from matplotlib.ticker import MaxNLocator

    moments = [x for s in series for x, _ in s.points]
    short = bool(moments) and max(moments) - min(moments) < _SOON_S
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S" if short else "%H:%M"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: _say(chart, value))
    axes.grid(alpha=0.3)
    values = [y for s in series for _, y in s.points if math.isfinite(y)]
    if not any(values):
        axes.set_ylim(0, 2**30 if chart.unit == "bytes" else 1)
    elif min(values) >= 0:
        axes.set_ylim(bottom=0)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles[:_MOST_LEGENDS], labels[:_MOST_LEGENDS], fontsize=6, ncols=2)


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0")
    return minutes


def main() -> int:
    """Exit status 1 where Prometheus does not answer, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="python -m infra.dashboards.preview")
    parser.add_argument("url", help="of Prometheus, as http://127.0.0.1:9090")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=_minutes, default=30.0, help="to look back")
    parser.add_argument("--prefix", choices=PREFIXES, default=PREFIXES[0])
    asked = parser.parse_args()
    try:
        asked.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"{asked.folder}: {error.strerror}")
    source, now_s = Prometheus(asked.url, asked.prefix), time.time()
    for board in BOARDS:
        path = asked.folder / f"{board.name}.png"
        try:
            draw(board, source, now_s - 60 * asked.minutes, now_s, path)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            print(f"{asked.url}: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            parser.error(f"{path}: {error.strerror}")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
