"""What a lossy session does in its next round, given the audit. Pure.

While the audit's last level, the closed gate, is in force, the mode has fallen back to an
exact plan. A share of its rounds still goes through slim, so that the full tier's judgement of
what the gate would have passed can open it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from policies.audit import AuditSettings, gate_in_force, shadow_gate
from policies.audit_state import AuditState
from policies.gates import Gate, GateKind
from policies.noise import noise_keys
from policies.vocabulary import Plan, PlanKind, SamplingSpec, SessionSpec

_SALT = 0x736861646F77


@dataclass(frozen=True, slots=True)
class LossySettings:
    """What a live server may be told anew: the gate of requests that bring none, the audit."""

    gate: Gate = field(default_factory=lambda: Gate(GateKind.RATIO))
    audit: AuditSettings = field(default_factory=AuditSettings)


@dataclass(frozen=True, slots=True)
class LossyLimits:
    """What a request may ask for. `gate` fills in what it leaves out; thresholds below the
    others are refused, and an `alpha` above `max_alpha`."""

    gate: Gate = field(default_factory=lambda: Gate(GateKind.RATIO))
    min_theta_accept: float = 0.3
    min_theta_escalate: float = 0.0
    min_margin: float = 0.0
    alpha: float = 0.3
    max_alpha: float = 0.9


def plan_in_force(
    spec: SessionSpec, position: int, fallback: Plan, state: AuditState, settings: LossySettings
) -> Plan:
    """The plan of the round of a session that begins at a position.

    A gate that was asked for closed is no fallback: it stays as it is.
    """
    asked = spec.plan
    if asked.kind is not PlanKind.VIA:
        return asked
    base, audit = asked.gate or settings.gate, settings.audit
    if base.closed:
        return replace(asked, gate=base)
    gate = gate_in_force(base, state, audit)
    if not gate.closed:
        return replace(asked, gate=gate, level=state.level)
    if _draw(spec.sampling, position) >= audit.sample_prob:
        return fallback
    return replace(asked, gate=gate, level=state.level, shadow=shadow_gate(base, audit))


def _draw(sampling: SamplingSpec, position: int) -> float:
    """Uniform in [0, 1), of a round: no state, the same after a retry."""
    return noise_keys(sampling.seed ^ _SALT, sampling.choice, position)[0] / 2**32
