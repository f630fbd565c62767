"""What the ingress is told of the model, the limits and the keys. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from policies.lossy import LossyLimits
from policies.vocabulary import Plan, PlanKind, SamplingParams


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """Limits and defaults of one served model.

    `max_context`: tokens of prompt and answer together. `default_max_tokens`: None fills the
    context. `max_choices` bounds n times the prompts of a request. `plan` serves mode "auto",
    unless `auto` leaves it to the router round by round.
    `sampling` holds the values of parameters that a request leaves out. `api_keys`: empty
    is open. `aliases`: other names under which the model may be asked for. `echo_request_id`:
    false where a proxy in front already sends X-Request-Id back. `lossy`: None refuses the
    lossy modes. `max_schema_depth`: levels of JSON, two or more for each level of the answer.
    `metrics`: whether /metrics needs no key, needs one, or is not there. `playground`: serve the
    chat page at `/`.
    """

    model_name: str
    max_context: int
    vocab_size: int
    eos_ids: frozenset[int]
    aliases: tuple[str, ...] = ()
    default_max_tokens: int | None = None
    max_choices: int = 16
    max_stop_strings: int = 16
    max_stop_chars: int = 256
    max_stop_ids: int = 64
    max_logit_biases: int = 1024
    max_schema_chars: int = 64 << 10
    max_schema_depth: int = 64
    max_body_bytes: int = 4 << 20
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    plan: Plan = field(default_factory=lambda: Plan(PlanKind.THREE_TIER))
    auto: bool = False
    max_gamma: int = 16
    max_block: int = 32
    lossy: LossyLimits | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    system_fingerprint: str | None = None
    owned_by: str = "viaserve"
    echo_request_id: bool = True
    metrics: Literal["open", "key", "off"] = "open"
    playground: bool = True

    @property
    def served_names(self) -> tuple[str, ...]:
        """Every name that a request may give as its model."""
        return (self.model_name, *self.aliases)
