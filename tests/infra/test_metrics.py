"""Laws of the exporter: totals become increments, once each, by label."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from infra.metric import Metric
from infra.metrics import Exporter

X = Metric("x_total", "counter", "What.", ("kind",))
Y = Metric("y", "gauge", "What.")
Z = Metric("z_seconds", "histogram", "What.", ("kind",), buckets=(1.0, 2.0))


class Recorded:
    """Values by metric name and labels; refuses labels that were not declared."""

    def __init__(self) -> None:
        self.values: dict[tuple[Any, ...], float] = defaultdict(float)
        self.observed: dict[tuple[Any, ...], list[float]] = defaultdict(list)

    def exporter(self, **always: str) -> Exporter:
        return Exporter(always, self.make, self.make, self.make)

    def make(
        self,
        name: str,
        description: str,
        tag_keys: tuple[str, ...],
        boundaries: list[float] | None = None,
    ) -> Any:
        assert description.endswith(".")
        values, observed = self.values, self.observed

        class Metric:
            def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
                assert value > 0
                assert set(tags or {}) == set(tag_keys)
                values[name, *sorted((tags or {}).items())] += value

            def set(self, value: float, tags: dict[str, str] | None = None) -> None:
                assert set(tags or {}) == set(tag_keys)
                values[name, *sorted((tags or {}).items())] = value

            def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
                assert boundaries
                assert set(tags or {}) == set(tag_keys)
                observed[name, *sorted((tags or {}).items())].append(value)

        return Metric()


def test_a_total_told_again_counts_once_and_one_that_fell_began_anew():
    seen = Recorded()
    exporter = seen.exporter()
    for value in (3, 3, 5, 2, 2):
        exporter.total(X, value, kind="a")
    exporter.total(X, 1, kind="b")
    assert seen.values["viaserve_x_total", ("kind", "a")] == 5 + 2
    assert seen.values["viaserve_x_total", ("kind", "b")] == 1


def test_a_level_is_as_it_was_told_last_and_has_the_labels_of_all():
    seen = Recorded()
    exporter = seen.exporter(model_name="m")
    for value in (3.0, 0.5):
        exporter.level(Y, value)
    assert seen.values["viaserve_y", ("model_name", "m")] == 0.5


def test_each_value_of_a_histogram_is_counted_once():
    seen = Recorded()
    exporter = seen.exporter()
    exporter.values(Z, [0.5, 1.5], kind="a")
    exporter.values(Z, [3.0], kind="a")
    assert seen.observed["viaserve_z_seconds", ("kind", "a")] == [0.5, 1.5, 3.0]


def test_labels_are_told_in_ascii_as_ray_takes_no_other():
    seen = Recorded()
    exporter = seen.exporter(model_name="Zo\u00eb \u2028")
    exporter.more(X, 1, kind="\u4e2d")
    told = (("kind", r"\u4e2d"), ("model_name", r"Zo\xeb \u2028"))
    assert dict(seen.values) == {("viaserve_x_total", *told): 1}
