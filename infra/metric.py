"""A metric as it is declared. Plain values: no metrics library is needed to read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "viaserve_"


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` without the prefix; `over`: how the same labels of several processes become one
    figure."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    what: str
    labels: tuple[str, ...] = ()
    over: Literal["sum", "max", "avg"] = "sum"
    buckets: tuple[float, ...] = ()
