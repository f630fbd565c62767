"""Outcomes of simulations as a table and as one JSON line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO

from rich.console import Console

from cluster.console.table import table
from cluster.simulate.run import Outcome, Spread
from cluster.simulate.setup import Setup

ROOFLINE = "step times of a roofline, measured by nobody"


@dataclass(frozen=True, slots=True)
class Report:
    """`source`: the fleet file's name; `cards`: of the whole fleet at the beginning."""

    source: str
    basis: str
    cards: int
    outcomes: tuple[Outcome, ...]

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))


def cards(setup: Setup) -> int:
    """Of both pools at the beginning."""
    pools = [setup.large, *([setup.cheap] if setup.cheap else [])]
    return sum(pool.workers * pool.cards for pool in pools)


def render(report: Report, width: int = 200) -> str:
    """A table for people."""
    headings = (
        "fleet",
        "tokens/s",
        "TTFT p50 / p99, s",
        "token p50 / p99, ms",
        "gap p50 / p99, ms",
        "busy large",
        "busy cheap",
        "workers",
        "per Mtok",
        "full rows/token",
        "off / two / three, %",
        "CPU s",
    )
    console = Console(file=StringIO(), width=width)
    title = f"{report.source}: {report.cards} cards; {report.basis}\n"
    console.print(title, markup=False, soft_wrap=True)
    console.print(table(headings, [_row(found) for found in report.outcomes]))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().rstrip()


def _row(found: Outcome) -> Sequence[str]:
    shares = [found.shares.get(kind, 0.0) for kind in ("off", "two_tier", "three_tier")]
    return (
        found.name if found.plan in (found.name, "auto") else f"{found.name} ({found.plan})",
        f"{found.tokens_per_s:,.0f}",
        _spread(found.ttft_s, 1.0),
        _spread(found.token_s, 1e3),
        _spread(found.gap_s, 1e3),
        _percent(found.util_frac.get("large")),
        _percent(found.util_frac.get("cheap")),
        " + ".join(f"{count:.3g}" for count in found.workers.values()),
        "" if found.cost_per_mtok is None else f"{found.cost_per_mtok:.2f}",
        f"{found.full_rows_per_token:.2f}",
        " / ".join(f"{100 * share:.0f}" for share in shares),
        f"{found.cpu_s:.0f}",
    )


def _spread(found: Spread, unit: float) -> str:
    return f"{found.p50 * unit:.3g} / {found.p99 * unit:.3g}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
