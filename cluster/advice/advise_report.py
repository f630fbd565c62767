"""Advice as tables for a terminal, and as one JSON line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.advice.bench_check import Check
from infra.bench.table import number, plain_table
from policies.advice import LoadAdvice, PlanAdvice
from policies.vocabulary import Plan, PlanKind

FORMAT = "viaserve-advice-1"
MEASURED = "from measured step times and agreement"
ROOFLINE = "a roofline's prediction: nobody has measured these step times"


@dataclass(frozen=True, slots=True)
class Report:
    """`source`: the file; `basis`: what its times rest on."""

    source: str
    basis: str
    loads: tuple[LoadAdvice, ...]
    checks: tuple[Check, ...] = ()

    def to_json(self) -> str:
        """One line."""
        found: dict[str, Any] = {
            "format": FORMAT,
            "source": self.source,
            "basis": self.basis,
            "loads": [dataclasses.asdict(load) for load in self.loads],
            "checks": [
                dataclasses.asdict(check)
                | {"error_frac": check.error_frac, "decode_error_frac": check.decode_error_frac}
                for check in self.checks
            ],
        }
        return json.dumps(found, ensure_ascii=False)


PLAN_HEADERS = (
    *("sessions", "plan", "gamma", "block", "tokens/s", "over off", "rows/token"),
    *("cheap:large", "saturates", "per Mtok"),
)
SLIM_HEADERS = (
    *("sessions", "wins", "slim cost", "slim pays", "saves rows", "a2 from", "slim up to"),
    *("cheapest plan", "per Mtok", "over off"),
)
CHECK_HEADERS = (
    *("mode", "streams", "plan", "tokens/s", "predicted", "over off", "predicted", "error"),
    *("decode over off", "predicted", "error"),
)


def render(report: Report) -> str:
    """All tables, and what their columns mean."""
    plans = [_plan(advice, plan) for advice in report.loads for plan in advice.plans]
    lines = [
        f"{report.source}: {report.basis}",
        plain_table(PLAN_HEADERS, plans),
        "Sessions share the steps of one worker a pool, in lockstep; * wins. Rows: scored by full "
        "per committed token.",
        "cheap:large: cheap workers to a large one with both always busy; saturates: sessions "
        "that takes; per Mtok: price of a million tokens then.",
        "",
        plain_table(SLIM_HEADERS, map(_slim, report.loads)),
        "Slim cost: its forward over full's, a row a session. Three tiers would beat two from "
        "that a2 on, or up to that slim cost; 'never': at none.",
        "Cheapest plan: of all shapes with the pools always busy; over off: its price over plain "
        "decoding's.",
    ]
    if report.checks:
        lines += ["", *_checks(report.checks)]
    return "\n".join(lines) + "\n"


def _plan(advice: LoadAdvice, found: PlanAdvice) -> Sequence[str]:
    plan = found.plan
    wins = " *" if plan.kind is advice.best else ""
    drafts, blocks = plan.kind is not PlanKind.OFF, plan.kind is PlanKind.THREE_TIER
    return (
        str(advice.load),
        f"{plan.kind}{wins}",
        str(plan.gamma) if drafts else "-",
        str(plan.block) if blocks else "-",
        f"{found.tokens_per_s:.1f}",
        number(found.ratio),
        number(found.full_rows_per_token),
        number(found.cheap_per_large) if drafts else "-",
        f"{found.sessions_per_large:.0f}",
        number(found.price_per_mtok, 3),
    )


def _slim(advice: LoadAdvice) -> Sequence[str]:
    known = advice.slim_pays is not None
    plain = advice.of(PlanKind.OFF)
    thrifty = advice.thriftiest
    price = thrifty.price_per_mtok if thrifty else None
    plain_price = plain.price_per_mtok if plain else None
    return (
        str(advice.load),
        str(advice.best),
        number(advice.slim_cost),
        _yes(advice.slim_pays),
        _yes(advice.slim_saves_rows),
        _or_never(advice.break_even_a2, known),
        _or_never(advice.break_even_slim, known),
        _told(thrifty.plan) if thrifty else "-",
        number(price, 3),
        number(price / plain_price) if price is not None and plain_price else "-",
    )


def _checks(checks: Iterable[Check]) -> list[str]:
    rows = [
        (
            check.mode,
            str(check.concurrency),
            _told(check.plan),
            f"{check.measured_tokens_per_s:.1f}",
            f"{check.predicted_tokens_per_s:.1f}",
            number(check.measured_ratio),
            number(check.predicted_ratio),
            _percent(check.error_frac),
            number(check.measured_decode_ratio),
            number(check.predicted_decode_ratio),
            _percent(check.decode_error_frac),
        )
        for check in checks
    ]
    return [
        plain_table(CHECK_HEADERS, rows),
        "Against the bench: tokens/s of whole turns, prefill included, and of decoding after the "
        "first token; error: of the predicted ratio.",
    ]


def _told(plan: Plan) -> str:
    match plan.kind:
        case PlanKind.OFF:
            return str(plan.kind)
        case PlanKind.TWO_TIER:
            return f"{plan.kind} {plan.gamma}"
        case _:
            return f"{plan.kind} {plan.gamma}/{plan.block}"


def _yes(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _or_never(value: float | None, known: bool) -> str:
    return number(value) if value is not None else "never" if known else "-"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.0f} %"
