"""The audit of mode `via`: from rows that full scored afterwards to the gate's level.

Level 0 is the gate as asked for, level `levels` is closed: the mode has fallen back to exact.
Pure: it neither draws the sample nor scores it. DESIGN section 3; the bound is
`policies.bound.upper_bound`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from policies.audit_state import AuditState, Tally
from policies.bound import FEWER, MORE, refuted, upper_bound
from policies.gates import Gate, tightened


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One token that passed the gate unseen by full, and what full says of it.

    `level`: the audit level when the token passed; the decision may have changed since.
    `overshoot`: log q' - log q of the token, in nats. `escalated`: only an escalation's
    catch-up brought the row. A row that the sample's coin chose when its span was committed
    is not, though a catch-up may have scored it for free: without it the sample would lack
    the spans before an escalation. At the closed level nothing passes: a row then is a
    shadow, a token that the `shadow_gate` would have passed and that full judged anyway in
    an exact round.
    """

    disagrees: bool
    overshoot: float
    escalated: bool
    level: int

    def __post_init__(self) -> None:
        assert not math.isnan(self.overshoot)


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """How much disagreement is allowed, and how patient the audit is. Illegal: ValueError.

    `epsilon`: the highest allowed mean of d. `confidence`: of the bound shown and of every
    proof; `alarm_confidence`: of the alarm. `sample_prob`: share of the committed spans that
    are audited at level 0; above it all of them are. `min_rows`: before an alarm; more than a
    span, so that one bad span is none, but few, because a bad slim escalates much and passes
    little. `recent_rows`: length of the stretches that the alarm looks at. `proof_rows`: by
    then the bound must be at most epsilon. `relax_rows`: the least wait before relaxing,
    doubled by each failed relaxation, at most `relax_doublings` times. `relax_fraction`: of
    epsilon, what the bound must be under to relax.
    """

    epsilon: float = 0.02
    confidence: float = 0.95
    alarm_confidence: float = 0.999
    levels: int = 4
    sample_prob: float = 0.25
    min_rows: int = 16
    recent_rows: int = 1_000
    proof_rows: int = 2_000
    relax_rows: int = 2_000
    relax_doublings: int = 4
    relax_fraction: float = 0.5

    def __post_init__(self) -> None:
        for name in ("epsilon", "confidence", "alarm_confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")
        for name in ("sample_prob", "relax_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], not {getattr(self, name)}")
        for name in ("levels", "min_rows", "recent_rows", "proof_rows", "relax_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.relax_doublings < 0:
            raise ValueError(f"relax_doublings must not be negative: {self.relax_doublings}")


@dataclass(frozen=True, slots=True)
class AuditFigures:
    """The audit in an answer. `bound`: anytime-valid upper bound, at `confidence`, on the mean
    disagreement at this level, from `rows` of the random sample."""

    level: int
    levels: int
    rows: int
    disagreements: int
    bound: float
    confidence: float
    epsilon: float


def figures_of(state: AuditState, settings: AuditSettings) -> AuditFigures:
    """What an answer tells of the audit."""
    return AuditFigures(
        state.level,
        settings.levels,
        state.evidence.rows,
        state.evidence.disagreements,
        disagreement_bound(state, settings),
        settings.confidence,
        settings.epsilon,
    )


def gate_in_force(gate: Gate, state: AuditState, settings: AuditSettings) -> Gate:
    """The gate that a round uses now."""
    return tightened(gate, state.level, settings.levels)


def shadow_gate(gate: Gate, settings: AuditSettings) -> Gate:
    """The strictest gate that is open: whose tokens are scored while the mode is exact."""
    return tightened(gate, settings.levels - 1, settings.levels)


def disagreement_bound(state: AuditState, settings: AuditSettings) -> float:
    """Upper bound on the mean of d at this level; 1 where there are no rows yet."""
    return upper_bound(state.evidence.rows, state.evidence.disagreements, settings.confidence)


def observe(state: AuditState, settings: AuditSettings, rows: Iterable[AuditRow]) -> AuditState:
    """The state after a batch of audited rows: all are counted, then at most one decision.

    So the order within a batch never matters. Rows of another level than the present one are
    stale: they count as audited tokens but are no evidence about this level's gate.
    """
    batch = list(rows)
    return _decided(counted(state, settings, batch), settings) if batch else state


def counted(state: AuditState, settings: AuditSettings, batch: Sequence[AuditRow]) -> AuditState:
    """The state with more rows, without a decision."""
    assert all(0 <= row.level <= settings.levels for row in batch)
    random = [row for row in batch if not row.escalated]
    # A shadow row was full's own commit, so it is no audited token of the lossy mode.
    sampled = [row for row in random if row.level < settings.levels]
    outcomes = [row.disagrees for row in random if row.level == state.level]
    return replace(
        state,
        evidence=state.evidence.plus(outcomes),
        recent=state.recent.plus(outcomes),
        escalated=state.escalated.plus(row.disagrees for row in batch if row.escalated),
        sampled=state.sampled.plus(row.disagrees for row in sampled),
        overshoot=state.overshoot.plus(row.overshoot for row in sampled),
        version=state.version + 1,
    )


def _decided(state: AuditState, settings: AuditSettings) -> AuditState:
    if _alarming(state.recent, settings) or _unproven(state.evidence, settings):
        return _tighten(state, settings)
    if state.level > 0 and _may_relax(state, settings):
        return _enter(state, state.level - 1, relaxed=True)
    if state.recent.rows >= settings.recent_rows:
        return replace(state, recent=Tally())
    return state


def _alarming(recent: Tally, settings: AuditSettings) -> bool:
    """Sure that the mean of d is above epsilon: the lower bound of the latest stretch is.

    Stretches, so that years of good rows cannot outvote a slim that has just gone bad.
    """
    return recent.rows >= settings.min_rows and refuted(
        recent.rows, recent.disagreements, settings.epsilon, MORE, settings.alarm_confidence
    )


def _unproven(evidence: Tally, settings: AuditSettings) -> bool:
    """The bound is still above epsilon after rows that a good slim would have done with.

    A mean of epsilon / 5 is proven after 700 rows or so, of epsilon itself never.
    """
    return evidence.rows >= settings.proof_rows and not _below(settings.epsilon, evidence, settings)


def _may_relax(state: AuditState, settings: AuditSettings) -> bool:
    wait_rows = settings.relax_rows << min(state.failed_relaxations, settings.relax_doublings)
    limit = settings.relax_fraction * settings.epsilon
    return state.evidence.rows >= wait_rows and _below(limit, state.evidence, settings)


def _below(limit: float, evidence: Tally, settings: AuditSettings) -> bool:
    """The upper bound on the mean of d is at most `limit`."""
    return refuted(evidence.rows, evidence.disagreements, limit, FEWER, settings.confidence)


def _tighten(state: AuditState, settings: AuditSettings) -> AuditState:
    """One level on. A closed gate stays closed and begins its evidence anew, so that a bad
    past does not hold it closed for ever."""
    failed = min(state.failed_relaxations + state.relaxed, settings.relax_doublings)
    state = replace(state, failed_relaxations=failed)
    return _enter(state, min(state.level + 1, settings.levels), relaxed=False)


def _enter(state: AuditState, level: int, *, relaxed: bool) -> AuditState:
    """Another gate has another mean of d: nothing seen before counts for it."""
    return replace(state, level=level, relaxed=relaxed, evidence=Tally(), recent=Tally())
