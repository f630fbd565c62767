"""Simulations of what a bench has measured, from a calibration of the same machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.advice.bench_check import AUTO, plan_of
from cluster.advice.calibration import Calibration
from cluster.config import ConfigError
from cluster.simulate.run import simulate
from cluster.simulate.sources import OFF, of_calibration
from policies.advice import KINDS

_LEARNT = 30
"""Requests of each session under `auto` at least: a server has learnt from other modes' turns."""


@dataclass(frozen=True, slots=True)
class Met:
    """One mode at one concurrency: tokens/s of all answers, simulated and measured."""

    mode: str
    concurrency: int
    simulated_tokens_per_s: float
    measured_tokens_per_s: float

    @property
    def error_frac(self) -> float:
        """Of the simulation."""
        return self.simulated_tokens_per_s / self.measured_tokens_per_s - 1


def meet(found: Calibration, bench: Mapping[str, Any]) -> tuple[Met, ...]:
    """Every exact mode that the bench measured. ConfigError where it cannot be simulated."""
    options = bench["options"]
    if options["random_plan"]:
        raise ConfigError("--bench: with a random plan there is nothing to compare with")
    exact = (*map(str, KINDS), AUTO)
    return tuple(
        _meet(found, row, options)
        for row in bench["modes"]
        if row["mode"] in exact and row["tokens"]
    )


def _meet(found: Calibration, row: Mapping[str, Any], options: Mapping[str, Any]) -> Met:
    mode, load = row["mode"], row["concurrency"]
    if mode == AUTO:
        plan = None
    else:
        plan = OFF if mode == OFF.kind else plan_of(found, mode, load, options)
    answered = max(row["requests"] - row["errors"], 1)
    tokens = row["tokens"] / answered
    requests = answered if plan is not None else max(answered, _LEARNT * load)
    setup = of_calibration(found, plan, load, requests, tokens)
    outcome = simulate(setup, mode)
    return Met(mode, load, outcome.tokens_per_s, row["tokens_per_s"])


def render(met: tuple[Met, ...]) -> str:
    """A table for people."""
    lines = [f"{'mode':12} {'sessions':>8} {'simulated':>10} {'measured':>10} {'error':>7}"]
    for each in met:
        lines.append(
            f"{each.mode:12} {each.concurrency:8} {each.simulated_tokens_per_s:10.1f}"
            f" {each.measured_tokens_per_s:10.1f} {each.error_frac:+7.0%}"
        )
    return "\n".join([*lines, "tokens/s of whole answers"])
