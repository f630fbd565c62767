"""The findings as a table for people and as one JSON object for scripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console, Group
from rich.text import Text

from cluster.console.table import coloured, table
from cluster.doctor.finding import Finding, Verdict

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red"}


def render(findings: Sequence[Finding]) -> Group:
    """A row each, what to do below what was found, and a last line that counts."""
    rows = []
    for finding in findings:
        said = Text(finding.found)
        if finding.advice:
            said.append(f"\n→ {finding.advice}", style="italic")
        rows.append(
            (
                finding.area,
                finding.what,
                coloured(finding.verdict, _STYLES[finding.verdict]),
                said,
            )
        )
    counts = {verdict: sum(f.verdict is verdict for f in findings) for verdict in Verdict}
    told = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    return Group(table(("", "what", "verdict", "found"), rows, left=4), Text(told))


def to_json(findings: Sequence[Finding]) -> str:
    """One line; `ok` is false where something failed."""
    return json.dumps(
        {"ok": not has_failed(findings), "findings": [asdict(finding) for finding in findings]},
        ensure_ascii=False,
    )


def has_failed(findings: Sequence[Finding]) -> bool:
    """Whether the command should exit non-zero."""
    return any(finding.verdict is Verdict.FAILED for finding in findings)


def show(findings: Sequence[Finding]) -> None:
    """On stdout: as wide as the terminal is, or wide enough for a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    console.print(render(findings))
