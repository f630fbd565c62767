"""The gate of mode `via`: what becomes of a drafted token that full has not seen.

Pure rules on slim's processed distribution q'. They know neither tokens nor full, and are
lossy: only a closed gate is exact. DESIGN section 3; arXiv 2606.12243.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class GateKind(StrEnum):
    """RATIO is the paper's rule; MARGIN also asks how sure slim is of its own choice."""

    RATIO = "ratio"
    MARGIN = "margin"


class Region(StrEnum):
    """The paper's A, B and C.

    ACCEPT: keep the draft's token. REPLACE: slim's own token (same noise) stands in, the rest
    of the block is dropped. ESCALATE: full judges the rest of the block.
    """

    ACCEPT = "accept"
    REPLACE = "replace"
    ESCALATE = "escalate"


@dataclass(frozen=True, slots=True)
class Gate:
    """Thresholds of r(v) = q'(v) / max q' for the drafted token v, and of slim's margin.

    `margin` (mu) is the smallest top-2 probability margin of q' at which slim counts as sure;
    only kind MARGIN reads it. Raises ValueError unless 1 >= theta_accept > theta_escalate >= 0
    and 0 <= margin <= 1. The defaults are the paper's, repaired: the printed 0.5 and 0.3 leave
    REPLACE empty.
    """

    kind: GateKind
    theta_accept: float = 0.7
    theta_escalate: float = 0.5
    margin: float = 0.3

    def __post_init__(self) -> None:
        if not 1 >= self.theta_accept > self.theta_escalate >= 0:
            raise ValueError(
                "a gate needs 1 >= theta_accept > theta_escalate >= 0, not "
                f"theta_accept={self.theta_accept}, theta_escalate={self.theta_escalate}"
            )
        if not 0 <= self.margin <= 1:
            raise ValueError(f"a gate needs 0 <= margin <= 1, not margin={self.margin}")

    @property
    def closed(self) -> bool:
        """True where nothing passes unseen by full, which makes `via` exact."""
        return self.theta_accept == 1


def region(gate: Gate, ratio: float, margin: float) -> Region:
    """What becomes of a drafted token with r = `ratio` where q' has the top-2 `margin`.

    RATIO: ACCEPT from theta_accept up, REPLACE from theta_escalate up, else ESCALATE. MARGIN:
    ESCALATE below the gate's margin, else ACCEPT from theta_accept up, else REPLACE.
    Law: theta_accept = 1 closes the gate for both kinds. Everything escalates, even the token
    with r = 1, so every committed token is full's choice and `via` is exact.
    """
    if gate.closed:
        return Region.ESCALATE
    match gate.kind:
        case GateKind.RATIO:
            escalate = ratio < gate.theta_escalate
        case GateKind.MARGIN:
            escalate = margin < gate.margin
    if escalate:
        return Region.ESCALATE
    return Region.ACCEPT if ratio >= gate.theta_accept else Region.REPLACE


def tightened(gate: Gate, level: int, levels: int) -> Gate:
    """The gate at an audit level: 0 is the gate itself, `levels` is closed.

    Every threshold goes the same share of its way to 1. So ACCEPT only shrinks with the level
    and ESCALATE only grows, for both kinds, and every level is legal.
    """
    assert levels > 0, levels
    assert 0 <= level <= levels, (level, levels)
    share = level / levels
    theta_accept = _towards_one(gate.theta_accept, share)
    return Gate(
        gate.kind,
        theta_accept,
        # Thresholds that nearly touch may round to one number, which would be illegal.
        min(_towards_one(gate.theta_escalate, share), math.nextafter(theta_accept, 0.0)),
        _towards_one(gate.margin, share),
    )


def _towards_one(value: float, share: float) -> float:
    return 1.0 if share == 1 else value + (1 - value) * share
