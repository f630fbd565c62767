"""Figures out to Ray's metrics, which a cluster's Prometheus collects. It knows no domain:
metrics, labels and numbers are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ray.util import metrics

from infra.metric import PREFIX, Metric


class Gauge(Protocol):
    """What is used of Ray's Gauge."""

    def set(self, value: float, tags: Any = None) -> None:
        """Set the value of these labels."""
        ...


class Counter(Protocol):
    """What is used of Ray's Counter."""

    def inc(self, value: float = 1.0, tags: Any = None) -> None:
        """Add to the value of these labels."""
        ...


class Histogram(Protocol):
    """What is used of Ray's Histogram."""

    def observe(self, value: float, tags: Any = None) -> None:
        """Count a value of these labels."""
        ...


class Exporter:
    """Turns totals and levels, told again and again, into counters and gauges. `always` are
    labels of every metric."""

    def __init__(
        self,
        always: dict[str, str],
        make_counter: Callable[..., Counter] = metrics.Counter,
        make_gauge: Callable[..., Gauge] = metrics.Gauge,
        make_histogram: Callable[..., Histogram] = metrics.Histogram,
    ) -> None:
        self._always = always
        self._make_counter = make_counter
        self._make_gauge = make_gauge
        self._make_histogram = make_histogram
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._told: dict[tuple[Any, ...], float] = {}

    def total(self, metric: Metric, value: float, **labels: str) -> None:
        """A number that only grows; one that has fallen began anew with its process."""
        key = (metric.name, *sorted(labels.items()))
        before = self._told.get(key, 0.0)
        self._told[key] = value
        self.more(metric, value - before if value >= before else value, **labels)

    def more(self, metric: Metric, value: float, **labels: str) -> None:
        """Add to a counter."""
        if metric.name not in self._counters:
            self._counters[metric.name] = self._make_counter(**self._declared(metric, "counter"))
        if value > 0:
            self._counters[metric.name].inc(value, tags=self._tags(metric, labels))

    def level(self, metric: Metric, value: float, **labels: str) -> None:
        """A number as it is now."""
        if metric.name not in self._gauges:
            self._gauges[metric.name] = self._make_gauge(**self._declared(metric, "gauge"))
        self._gauges[metric.name].set(value, tags=self._tags(metric, labels))

    def values(self, metric: Metric, values: Iterable[float], **labels: str) -> None:
        """Count each of them in a histogram."""
        if metric.name not in self._histograms:
            self._histograms[metric.name] = self._make_histogram(
                **self._declared(metric, "histogram"), boundaries=list(metric.buckets)
            )
        tags = self._tags(metric, labels)
        for value in values:
            self._histograms[metric.name].observe(value, tags=tags)

    def _declared(self, metric: Metric, kind: str) -> dict[str, Any]:
        assert metric.kind == kind, metric
        tag_keys = (*self._always, *metric.labels)
        return {"name": PREFIX + metric.name, "description": metric.what, "tag_keys": tag_keys}

    def _tags(self, metric: Metric, labels: dict[str, str]) -> dict[str, str]:
        assert labels.keys() == set(metric.labels), (metric, labels)
        return {key: _ascii(value) for key, value in (self._always | labels).items()}


def _ascii(value: str) -> str:
    """Ray 2.60 takes no other text in labels; without this one such name would end all metrics."""
    return value.encode("ascii", "backslashreplace").decode()
