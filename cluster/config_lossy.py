"""The lossy modes in the config: the gate, the audit, and the bounds of what requests may ask."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policies.audit import AuditSettings
from policies.gates import Gate, GateKind
from policies.lossy import LossyLimits, LossySettings

Threshold = Annotated[float, Field(strict=True)]


class Section(BaseModel):
    """A mapping of the config; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GateConfig(Section):
    """The gate of mode "via"; see Gate. theta_accept 1 closes it: the mode is exact then."""

    kind: GateKind = GateKind.RATIO
    theta_accept: Threshold = 0.7
    theta_escalate: Threshold = 0.5
    margin: Threshold = 0.3

    @model_validator(mode="after")
    def _legal(self) -> GateConfig:
        self.gate()
        return self

    def gate(self) -> Gate:
        """The same as the policies know it."""
        return Gate(self.kind, self.theta_accept, self.theta_escalate, self.margin)


class AuditConfig(Section):
    """The audit of mode "via"; see AuditSettings."""

    epsilon: float = 0.02
    confidence: float = 0.95
    sample_prob: float = 0.25
    levels: Annotated[int, Field(strict=True, ge=1, le=20)] = 4
    min_rows: int = 16
    proof_rows: int = 2_000
    relax_rows: int = 2_000
    relax_fraction: float = 0.5

    @model_validator(mode="after")
    def _legal(self) -> AuditConfig:
        self.settings()
        return self

    def settings(self) -> AuditSettings:
        """The same as the policies know it."""
        return AuditSettings(**self.model_dump())


class LiveConfig(Section):
    """What a live server may be told anew (Serve's `user_config` of deployment "router")."""

    gate: GateConfig = GateConfig()
    audit: AuditConfig = AuditConfig()

    def settings(self) -> LossySettings:
        """The same as the policies know it."""
        return LossySettings(self.gate.gate(), self.audit.settings())


class LossyConfig(LiveConfig):
    """The lossy modes "via" and "cascade", asked for by request, and the bounds of what a
    request may ask for."""

    enabled: bool = True
    min_theta_accept: Annotated[float, Field(ge=0, le=1)] = 0.3
    min_theta_escalate: Annotated[float, Field(ge=0, le=1)] = 0.0
    min_margin: Annotated[float, Field(ge=0, le=1)] = 0.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.3
    max_alpha: Annotated[float, Field(ge=0, le=1)] = 0.9

    @model_validator(mode="after")
    def _within_bounds(self) -> LossyConfig:
        if self.alpha > self.max_alpha:
            raise ValueError("alpha must be at most max_alpha")
        for name in ("theta_accept", "theta_escalate", "margin"):
            least = getattr(self, f"min_{name}")
            if getattr(self.gate, name) < least:
                raise ValueError(f"gate.{name} must be at least min_{name}, which is {least:g}")
        return self

    def limits(self) -> LossyLimits | None:
        """What the ingress is told."""
        if not self.enabled:
            return None
        return LossyLimits(
            self.gate.gate(),
            self.min_theta_accept,
            self.min_theta_escalate,
            self.min_margin,
            self.alpha,
            self.max_alpha,
        )

    def live(self) -> dict[str, Any]:
        """The part that a live server may be told anew, as plain values."""
        return self.model_dump(mode="json", include=set(LiveConfig.model_fields))
