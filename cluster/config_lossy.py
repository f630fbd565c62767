"""The lossy modes in the config: the gate, the audit, and the bounds of what requests may ask."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policies.audit import AuditSettings
from policies.gates import Gate, GateKind
from policies.lossy import LossyLimits, LossySettings

Threshold = Annotated[float, Field(strict=True)]


class Section(BaseModel):
    """A mapping of the config; an unknown key is an error, and so are `.nan` and `.inf`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class GateConfig(Section):
    """The gate of mode "via"; see Gate. r: what slim thinks of the draft's token, over what it
    thinks of its own."""

    kind: GateKind = GateKind.RATIO
    """`ratio` looks at r alone, `margin` also at how sure slim is."""
    theta_accept: Threshold = 0.7
    """From this r on the draft's token stays; 1 closes the gate: the mode is exact then."""
    theta_escalate: Threshold = 0.5
    """Below this r full is asked; between the two slim's own token stands."""
    margin: Threshold = 0.3
    """Of gate `margin`: slim's lead of its first token over the second that counts as sure."""

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
    """Share of tokens that may differ from full's, between 0 and 1; above it the gate tightens."""
    confidence: float = 0.95
    """Of the upper bound on that share, valid at any time; between 0 and 1."""
    sample_prob: float = 0.25
    """Share of the committed spans that full scores in the background at level 0; above it all."""
    levels: Annotated[int, Field(strict=True, ge=1, le=20)] = 4
    """Steps from the gate as set to a closed one, which is exact."""
    min_rows: int = 16
    """Audited tokens before an alarm: more than a span has, or one bad span would be one."""
    proof_rows: int = 2_000
    """By so many audited tokens the bound must be at most epsilon."""
    relax_rows: int = 2_000
    """Audited tokens before the gate relaxes, at least; doubled by each failed try."""
    relax_fraction: float = 0.5
    """It relaxes where the bound is below this share of epsilon."""

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
    """When slim commits without full."""
    audit: AuditConfig = AuditConfig()
    """How that is watched, and what follows."""

    def settings(self) -> LossySettings:
        """The same as the policies know it."""
        return LossySettings(self.gate.gate(), self.audit.settings())


class LossyConfig(LiveConfig):
    """The lossy modes "via" and "cascade", asked for by request, and the bounds of what a
    request may ask for."""

    enabled: bool = True
    """False refuses the lossy modes."""
    min_theta_accept: Annotated[float, Field(ge=0, le=1)] = 0.3
    """The least `theta_accept` that a request may ask for."""
    min_theta_escalate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The least `theta_escalate` that a request may ask for."""
    min_margin: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The least `margin` that a request may ask for."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Of mode `cascade`, where a request gives none."""
    max_alpha: Annotated[float, Field(ge=0, le=1)] = 0.9
    """The highest `alpha` that a request may ask for."""

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
