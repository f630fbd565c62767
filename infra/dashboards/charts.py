"""What a dashboard is made of: rows of charts, each with its queries. Plain values.

Queries are PromQL with three of Grafana's variables: `${prefix}`, the beginning of our metrics'
names, `${of}`, the labels of the chosen model, and `$__rate_interval`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIXES = ("viaserve_", "ray_viaserve_")
"""On our own /metrics, and on the pages of Ray's agents."""
OF = 'model_name=~"$model"'


@dataclass(frozen=True, slots=True)
class Query:
    """`legend`: with `{{label}}`."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One panel. `unit`: as Grafana names it; `width` of 24."""

    title: str
    what: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["lines", "stack", "number", "bars"] = "lines"
    width: int = 8


@dataclass(frozen=True, slots=True)
class Row:
    """Charts under a heading."""

    title: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `name` is that of its file and, with `viaserve-` before it, its uid."""

    name: str
    title: str
    what: str
    rows: tuple[Row, ...]

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Of all rows."""
        return tuple(chart for row in self.rows for chart in row.charts)


def metric(name: str, *matchers: str) -> str:
    """A metric of ours, of the chosen model."""
    return "${prefix}" + name + "{" + ", ".join((OF, *matchers)) + "}"


def per_second(name: str, *matchers: str, by: str = "") -> str:
    """What a counter of all processes grows by."""
    return f"sum{_by(by)} (rate({metric(name, *matchers)}[$__rate_interval]))"


def quantile(share: float, name: str, by: str = "") -> str:
    """Of a histogram of all processes."""
    grouped = f"le, {by}" if by else "le"
    rate = f"rate({metric(f'{name}_bucket')}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by ({grouped}) ({rate}))"


def level(name: str, over: str, *matchers: str, by: str = "") -> str:
    """A gauge over all processes that tell it."""
    return f"{over}{_by(by)} ({metric(name, *matchers)})"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def or_zero(expr: str) -> str:
    """0 as long as there is no such event; without it a chart says "no data"."""
    return f"({expr}) or on() vector(0)"


def share(part: str, whole: str) -> str:
    """Of sums by the same labels; 0 where the part has never happened, for its counter is not
    there before its first event."""
    return f"(({part}) or 0 * ({whole})) / ({whole})"


def over(part: str, whole: str) -> str:
    """A share or a mean."""
    return or_zero(share(part, whole))


def line(expr: str, legend: str) -> Query:
    """A query that is 0 before its first event."""
    return Query(or_zero(expr), legend)


def latency(title: str, what: str, name: str) -> Chart:
    """The median and the tail by mode."""
    shares = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    lines = [
        line(quantile(share, name, "mode"), f"{{{{mode}}}} {label}") for share, label in shares
    ]
    return Chart(title, what, "s", tuple(lines), width=12)
