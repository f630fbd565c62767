"""The plan that a request asks for, within the server's bounds. It knows no tokens."""

from __future__ import annotations

from dataclasses import replace

from actors.ingress.errors import invalid
from actors.ingress.schema import Extension
from actors.ingress.settings import IngressSettings
from policies.gates import Gate, GateKind
from policies.lossy import LossyLimits
from policies.vocabulary import Plan, PlanKind

GATE_FIELDS = ("gate", "theta_accept", "theta_escalate", "margin")


def plan_of(extension: Extension, settings: IngressSettings) -> Plan:
    """Raises ApiError 400 where the bounds do not allow it."""
    plan = settings.plan
    if is_auto(extension, settings):
        plan = Plan(PlanKind.OFF, settings.max_gamma, settings.max_block)
    elif extension.mode != "auto":
        plan = replace(plan, kind=PlanKind(extension.mode))
    if extension.gamma is not None:
        plan = replace(plan, gamma=_within("gamma", extension.gamma, settings.max_gamma))
    if extension.block is not None:
        plan = replace(plan, block=_within("block", extension.block, settings.max_block))
    _only_under("alpha", ("alpha",), extension, PlanKind.CASCADE)
    _only_under("a gate", GATE_FIELDS, extension, PlanKind.VIA)
    if plan.kind.exact:
        return plan
    if settings.lossy is None:
        raise invalid("Lossy modes are switched off on this server.", "viaserve.mode")
    if plan.kind is PlanKind.CASCADE:
        return replace(plan, alpha=_alpha(extension, settings.lossy))
    return replace(plan, gate=_gate(extension, settings.lossy))


def is_auto(extension: Extension, settings: IngressSettings) -> bool:
    """Whether the router is to choose round by round; the plan then holds upper bounds."""
    return settings.auto and extension.mode == "auto"


def _within(name: str, value: int, largest: int) -> int:
    if not 1 <= value <= largest:
        raise invalid(f"'viaserve.{name}' should be from 1 to {largest}.", f"viaserve.{name}")
    return value


def _only_under(what: str, fields: tuple[str, ...], extension: Extension, kind: PlanKind) -> None:
    given = [name for name in fields if getattr(extension, name) is not None]
    if given and extension.mode != kind.value:
        raise invalid(f"{what} belongs to mode '{kind}' only.".capitalize(), f"viaserve.{given[0]}")


def _alpha(extension: Extension, limits: LossyLimits) -> float:
    alpha = limits.alpha if extension.alpha is None else extension.alpha
    if not 0 <= alpha <= limits.max_alpha:
        raise invalid(f"'viaserve.alpha' should be from 0 to {limits.max_alpha}.", "viaserve.alpha")
    return alpha


def _gate(extension: Extension, limits: LossyLimits) -> Gate | None:
    """None where the request leaves all of it to the server."""
    asked = {
        name: value for name in GATE_FIELDS[1:] if (value := getattr(extension, name)) is not None
    }
    if not asked and extension.gate is None:
        return None
    bounds = {
        "theta_accept": limits.min_theta_accept,
        "theta_escalate": limits.min_theta_escalate,
        "margin": limits.min_margin,
    }
    for name, value in asked.items():
        if not bounds[name] <= value <= 1:
            param = f"viaserve.{name}"
            raise invalid(f"'{param}' should be from {bounds[name]:g} to 1.", param)
    kind = GateKind(extension.gate) if extension.gate else limits.gate.kind
    try:
        return replace(limits.gate, kind=kind, **asked)
    except ValueError as error:
        message = f"{str(error).capitalize()} (what is left out is the server's default)."
        raise invalid(message, "viaserve.theta_accept") from None
