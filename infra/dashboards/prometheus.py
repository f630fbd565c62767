"""Asks a Prometheus what a chart's queries give. It knows its HTTP API and no Grafana."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx

from infra.dashboards.charts import Chart

_INTERVAL = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: (Unix seconds, value) pairs. `query`: the number of its query;
    `labelled`: false of a total, and of the zero before the first event."""

    query: int
    legend: str
    labelled: bool
    points: tuple[tuple[float, float], ...]


class Prometheus:
    """A running one. `prefix`: of our metrics' names there; `rate_s`: what a rate looks back."""

    def __init__(self, url: str, prefix: str, rate_s: int = 60) -> None:
        self._url = url.rstrip("/")
        self._prefix = prefix
        self._rate_s = rate_s

    def spell(self, expr: str) -> str:
        """A query as Grafana would send it, of all models."""
        expr = expr.replace("${prefix}", self._prefix).replace("$model", ".*")
        return expr.replace(_INTERVAL, f"{self._rate_s}s")

    def series(self, chart: Chart, begin_s: float, end_s: float, step_s: float) -> list[Series]:
        """All lines of a chart over a stretch of time. Raises httpx.HTTPError, and ValueError
        with Prometheus' own words where a query is wrong."""
        found: list[Series] = []
        for number, query in enumerate(chart.queries):
            asked = {"query": self.spell(query.expr)}
            span = {"start": f"{begin_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:g}"}
            for result in self._asked(chart.title, asked | span):
                points = tuple((float(at), float(value)) for at, value in result["values"])
                labels = result["metric"]
                legend = _legend(query.legend, labels)
                found.append(Series(number, legend, bool(labels), points))
        return found

    def _asked(self, title: str, params: dict[str, str]) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self._url}/api/v1/query_range", params=params, timeout=30.0)
        try:
            body = answer.json()
            if body["status"] == "success":
                return body["data"]["result"]
            said = body["error"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"answers {answer.status_code}, not as a Prometheus does") from None
        raise ValueError(f"{title}: {said}: {params['query']}")


def _legend(template: str, labels: dict[str, str]) -> str:
    spelled = re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), template)
    return spelled.strip() or "none yet"
