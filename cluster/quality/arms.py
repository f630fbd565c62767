"""The arms of a comparison: a mode at one setting of its thresholds, under a label. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.bench import BenchError
from policies.gates import Gate, GateKind

ESCALATE_BELOW = 0.2
"""theta_escalate lies so much below theta_accept where it is not given."""

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class ArmOptions:
    """What is compared. `sweep`: thresholds theta_accept of mode via, `escalate` one
    theta_escalate for all of them; `gate` and `margin` are of every via arm. `alphas`: of mode
    cascade. Without thresholds a lossy mode is one arm at the server's own."""

    modes: tuple[str, ...] = ("off", "two_tier", "three_tier", "cascade", "via")
    sweep: tuple[float, ...] = ()
    escalate: float | None = None
    gate: str = ""
    margin: float | None = None
    alphas: tuple[float, ...] = ()


def arms(options: ArmOptions) -> dict[str, dict[str, Any]]:
    """Label to request extension, in the order of the modes. Raises BenchError."""
    needs = {
        "via": (options.sweep, options.gate, options.escalate, options.margin),
        "cascade": (options.alphas,),
    }
    for mode, given in needs.items():
        if mode not in options.modes and any(value not in ((), "", None) for value in given):
            raise BenchError(f"thresholds of mode {mode} are given, but not the mode in --modes")
    if options.escalate is not None and not options.sweep:
        raise BenchError("--escalate belongs to the thresholds of --sweep")
    found = [arm for mode in options.modes for arm in _of_mode(mode, options)]
    labels = [label for label, _ in found]
    if len(set(labels)) < len(labels):
        raise BenchError(f"each mode and threshold once: {', '.join(labels)}")
    return {label: {**extension, "token_ids": True} for label, extension in found}


def _of_mode(mode: str, options: ArmOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    if mode == "cascade" and options.alphas:
        for alpha in options.alphas:
            yield f"cascade {alpha:g}", {"mode": mode, "alpha": alpha}
    elif mode == "via":
        yield from _of_via(options)
    else:
        yield mode, {"mode": mode}


def _of_via(options: ArmOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    shared = {"gate": options.gate or None, "margin": options.margin}
    base = {"mode": "via"} | {name: value for name, value in shared.items() if value is not None}
    if not options.sweep:
        yield "via", base
    for accept in options.sweep:
        below = max(0.0, round(accept - ESCALATE_BELOW, _DIGITS))
        escalate = below if options.escalate is None else options.escalate
        try:
            Gate(GateKind(options.gate or "ratio"), accept, escalate, options.margin or 0.0)
        except ValueError as error:
            raise BenchError(str(error)) from None
        # The margin gate does not read theta_escalate.
        name = f"{accept:g}" if options.gate == "margin" else f"{accept:g}/{escalate:g}"
        yield f"via {name}", {**base, "theta_accept": accept, "theta_escalate": escalate}
