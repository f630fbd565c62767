"""Predicted against measured: advice held to what `python -m cluster bench` printed.

A prediction adds what the bench's answers contain beside decoding: full's prefill before the
first token, and then the proposing tiers' own of the same prompt. Not in it: the HTTP side, and
what processes on shared cores cost each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.advice.calibration import Calibration
from cluster.errors import ConfigError
from policies.advice import KINDS
from policies.costs import cheapest
from policies.vocabulary import Plan, PlanKind, Tier

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Check:
    """One mode at one concurrency. Ratios are tokens/s over those of `off`: of the whole turns,
    prefill included, and of decoding alone (after the first token; None where not measured)."""

    mode: str
    concurrency: int
    plan: Plan
    predicted_tokens_per_s: float
    measured_tokens_per_s: float
    predicted_ratio: float
    measured_ratio: float
    predicted_decode_ratio: float
    measured_decode_ratio: float | None

    @property
    def error_frac(self) -> float:
        """Of the ratio of whole turns."""
        return self.predicted_ratio / self.measured_ratio - 1

    @property
    def decode_error_frac(self) -> float | None:
        """Of the ratio of decoding alone."""
        measured = self.measured_decode_ratio
        return None if measured is None else self.predicted_decode_ratio / measured - 1


def read_bench(path: Path) -> dict[str, Any]:
    """The report in what the bench printed, its table included. ConfigError in one line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ConfigError(f"--bench {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--bench {path}: not text") from error
    for line in reversed(lines):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                break
            if isinstance(found, dict) and {"options", "modes"} <= found.keys():
                _check_shape(path, found)
                return found
            break
    raise ConfigError(f"--bench {path}: no JSON line of `python -m cluster bench` there")


def _check_shape(path: Path, found: Mapping[str, Any]) -> None:
    """ConfigError that names the first key which `bench` would not have written so."""
    options, rows = found["options"], found["modes"]
    if not isinstance(options, dict) or not {"random_plan", "gamma", "block"} <= options.keys():
        raise ConfigError(f"--bench {path}: options must have random_plan, gamma and block")
    for name in ("gamma", "block"):
        if options[name] is not None and not _is_number(options[name], whole=True):
            raise ConfigError(f"--bench {path}: options.{name} must be null or from 1 up")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"--bench {path}: modes must be a list of mappings")
    for number, row in enumerate(rows):
        if not isinstance(row.get("mode"), str):
            raise ConfigError(f"--bench {path}: modes.{number}.mode must be a name")
        if not row.get("tokens"):
            continue  # a mode that got no token has no figures either
        for name in ("concurrency", "requests", "tokens", "tokens_per_s"):
            whole = name != "tokens_per_s"
            if not _is_number(row.get(name), whole):
                raise ConfigError(f"--bench {path}: modes.{number}.{name} must be above 0")
        for name in ("ttft_s", "token_s", "gap_s"):
            if row.get(name) is not None and not isinstance(row[name], dict):
                raise ConfigError(f"--bench {path}: modes.{number}.{name} must be a mapping")


def _is_number(value: object, whole: bool) -> bool:
    """Finite and above 0."""
    kinds = (int,) if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < math.inf


def check(found: Calibration, bench: Mapping[str, Any]) -> tuple[Check, ...]:
    """Every exact mode of the bench beside `off`, concurrency by concurrency."""
    options, measured = bench["options"], bench["modes"]
    if options["random_plan"]:
        raise ConfigError("--bench: with a random plan there is nothing to compare with")
    plain = {row["concurrency"]: row for row in measured if row["mode"] == PlanKind.OFF}
    if not plain:
        raise ConfigError("--bench: mode off is not among those measured")
    exact = (*map(str, KINDS[1:]), AUTO)
    return tuple(
        _check(found, row, plain[row["concurrency"]], options)
        for row in measured
        if row["mode"] in exact and row["concurrency"] in plain and row["tokens"]
    )


def _check(
    found: Calibration, row: Mapping[str, Any], plain: Mapping[str, Any], options: Mapping[str, Any]
) -> Check:
    load = row["concurrency"]
    plan = plan_of(found, row["mode"], load, options)
    ours = _seconds(found, plan, load, row)
    theirs = _seconds(found, Plan(PlanKind.OFF), load, plain)
    decode, plain_decode = row["token_s"], plain["token_s"]
    return Check(
        mode=row["mode"],
        concurrency=load,
        plan=plan,
        predicted_tokens_per_s=load / ours[0],
        measured_tokens_per_s=row["tokens_per_s"],
        predicted_ratio=theirs[0] / ours[0],
        measured_ratio=row["tokens_per_s"] / plain["tokens_per_s"],
        predicted_decode_ratio=theirs[1] / ours[1],
        measured_decode_ratio=(
            plain_decode["p50"] / decode["p50"] if decode and plain_decode else None
        ),
    )


def plan_of(found: Calibration, mode: str, load: int, options: Mapping[str, Any]) -> Plan:
    """As the bench asked for it, or the config's; of `auto` what the controller should find."""
    if mode == AUTO:
        return _best_plan(found, load)
    kind = PlanKind(mode)
    gamma = options["gamma"] or found.served.gamma
    block = gamma if kind is PlanKind.TWO_TIER else options["block"] or found.served.block
    if not found.model_at(load).knows(kind):
        raise ConfigError(f"--bench: mode {mode} needs tiers that were not calibrated")
    return Plan(kind, gamma, block)


def _best_plan(found: Calibration, load: int) -> Plan:
    """The quickest of all kinds whose tiers there are."""
    model, bounds = found.model_at(load), found.bounds
    shapes = [
        cheapest(model, kind, load, bounds.max_gamma, bounds.max_block)
        for kind in KINDS
        if model.knows(kind)
    ]
    return min(shapes, key=lambda pair: pair[1])[0]


def _seconds(
    found: Calibration, plan: Plan, load: int, row: Mapping[str, Any]
) -> tuple[float, float]:
    """Of one session's token: over its whole answer, and after its first token.

    Prompts of sessions that begin together are computed one after the other.
    """
    length = max(row["tokens"] / max(row["requests"] - row["errors"], 1), 2.0)
    prompts = load * found.prompt_tokens
    first_s = prompts * found.prefill_token_s.get(Tier.FULL, 0.0)
    catching_up_s = prompts * _prefill(found, sorted(plan.kind.tiers))
    token_s = found.model_at(load).cost(plan, load)
    whole_s = (first_s + catching_up_s) / length + token_s
    return whole_s, catching_up_s / (length - 1) + token_s


def _prefill(found: Calibration, tiers: Sequence[Tier]) -> float:
    return sum(found.prefill_token_s.get(tier, 0.0) for tier in tiers)
