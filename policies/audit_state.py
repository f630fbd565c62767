"""What the audit of lossy commits remembers: counts, so small that it can outlive a router.

Values and their JSON form. The decisions are in `policies.audit`.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, cast

OVERSHOOT_EDGES = (-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Upper edges (included) of the overshoot buckets, in nats; one more bucket lies above."""
OVERSHOOT_CAP = 32.0
"""Overshoot is clipped to this many nats: it is infinite where full's filters drop the token."""


def _check_counts(**counts: object) -> None:
    for name, count in counts.items():
        if type(count) is not int or count < 0:
            raise ValueError(f"{name} is no count: {count!r}")


@dataclass(frozen=True, slots=True)
class Tally:
    """Audited rows, and those of them where the committed token is not full's choice."""

    rows: int = 0
    disagreements: int = 0

    def __post_init__(self) -> None:
        _check_counts(rows=self.rows, disagreements=self.disagreements)
        if self.disagreements > self.rows:
            raise ValueError(f"{self.disagreements} disagreements in {self.rows} rows")

    def plus(self, outcomes: Iterable[bool]) -> Tally:
        """With more rows, True where they disagree."""
        counted = list(outcomes)
        return Tally(self.rows + len(counted), self.disagreements + sum(counted))


@dataclass(frozen=True, slots=True)
class Overshoot:
    """Histogram of log q'(v) - log q(v), slim's less full's, of sampled tokens v, in nats.

    `counts[i]`: values above OVERSHOOT_EDGES[i - 1] and up to OVERSHOOT_EDGES[i]. Its tail,
    not its mean, is what predicts collapse (arXiv 2607.26627). `most` is None before a value.
    """

    counts: tuple[int, ...] = (0,) * (len(OVERSHOOT_EDGES) + 1)
    total: float = 0.0
    most: float | None = None

    def __post_init__(self) -> None:
        _check_counts(**{f"counts[{i}]": count for i, count in enumerate(self.counts)})
        if len(self.counts) != len(OVERSHOOT_EDGES) + 1:
            raise ValueError(f"{len(self.counts)} overshoot buckets")
        if not math.isfinite(self.total) or not math.isfinite(self.most or 0.0):
            raise ValueError(f"overshoot is not finite: {self.total}, {self.most}")

    def plus(self, values: Iterable[float]) -> Overshoot:
        """With more values; each is clipped to OVERSHOOT_CAP either way."""
        clipped = [min(max(value, -OVERSHOOT_CAP), OVERSHOOT_CAP) for value in values]
        if not clipped:
            return self
        counts = list(self.counts)
        for value in clipped:
            counts[bisect_left(OVERSHOOT_EDGES, value)] += 1
        most = max(clipped) if self.most is None else max(self.most, *clipped)
        # fsum rounds once, so the order of a batch cannot show.
        return Overshoot(tuple(counts), self.total + math.fsum(clipped), most)


@dataclass(frozen=True, slots=True)
class AuditState:
    """One model trio's audit.

    `trio` names draft, slim and full. `level`: how far the gate is tightened. `evidence`: the
    random sample since this level began, `recent` its latest stretch; both include shadow rows
    where the gate is closed. `escalated`: rows of escalation catch-ups, a biased sample, in no
    bound. `sampled` and `overshoot`: the random sample over all levels. `relaxed`: this level
    was reached by relaxing; `failed_relaxations` (capped) lengthens the next wait. `version`
    counts the batches taken in.
    """

    trio: str
    level: int = 0
    evidence: Tally = field(default_factory=Tally)
    recent: Tally = field(default_factory=Tally)
    escalated: Tally = field(default_factory=Tally)
    sampled: Tally = field(default_factory=Tally)
    overshoot: Overshoot = field(default_factory=Overshoot)
    relaxed: bool = False
    failed_relaxations: int = 0
    version: int = 0

    def __post_init__(self) -> None:
        _check_counts(
            level=self.level, failed_relaxations=self.failed_relaxations, version=self.version
        )


def to_json(state: AuditState) -> str:
    """The state as one line of JSON."""
    return json.dumps(asdict(state), allow_nan=False)


def from_json(text: str) -> AuditState:
    """The state of `to_json`; raises ValueError where the text is not one."""
    try:
        fields = cast(dict[str, Any], json.loads(text))
        for name in ("evidence", "recent", "escalated", "sampled"):
            fields[name] = Tally(**fields[name])
        fields["overshoot"]["counts"] = tuple(fields["overshoot"]["counts"])
        fields["overshoot"] = Overshoot(**fields["overshoot"])
        if not isinstance(fields["trio"], str) or not isinstance(fields["relaxed"], bool):
            raise ValueError("trio is a text and relaxed a truth value")
        return AuditState(**fields)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"not an audit state: {error}") from error
