"""Figures out to Ray's metrics, which a cluster's Prometheus collects. It knows no domain:
names, labels and numbers are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ray.util import metrics

PREFIX = "viaserve_"


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


class Exporter:
    """Turns totals and levels, told again and again, into counters and gauges."""

    def __init__(
        self,
        make_counter: Callable[..., Counter] = metrics.Counter,
        make_gauge: Callable[..., Gauge] = metrics.Gauge,
    ) -> None:
        self._make_counter = make_counter
        self._make_gauge = make_gauge
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._told: dict[tuple[Any, ...], float] = {}

    def total(self, name: str, what: str, value: float, **labels: str) -> None:
        """A number that only grows; one that has fallen began anew with its process."""
        if name not in self._counters:
            self._counters[name] = self._make_counter(
                PREFIX + name, description=what, tag_keys=tuple(labels)
            )
        key = (name, *sorted(labels.items()))
        before = self._told.get(key, 0.0)
        self._told[key] = value
        grown = value - before if value >= before else value
        if grown > 0:
            self._counters[name].inc(grown, tags=labels)

    def level(self, name: str, what: str, value: float, **labels: str) -> None:
        """A number as it is now."""
        if name not in self._gauges:
            self._gauges[name] = self._make_gauge(
                PREFIX + name, description=what, tag_keys=tuple(labels)
            )
        self._gauges[name].set(value, tags=labels)
