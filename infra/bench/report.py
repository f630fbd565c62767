"""The report of a run: built from its samples, printed as a table and as one JSON line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.bench.options import GENERATE, BenchOptions
from infra.bench.sample import TurnResult
from infra.bench.stats import Comparison, ModeStats, Spread, compare, mode_stats
from infra.bench.table import number, plain_table

HEADERS = (
    *("mode", "streams", "tokens", "tokens/s", "per stream", "TTFT ms", "gap ms", "ms/token"),
    *("end to end s", "time ratio", "passes/token", "rows/token", "kept"),
)


@dataclass(frozen=True, slots=True)
class BenchReport:
    """A run's figures. `generate` compares the first mode's text with the baseline's, which
    owes nobody the same text: it is told and never a failure."""

    options: dict[str, Any]
    modes: tuple[ModeStats, ...]
    identity: Comparison
    generate: Comparison | None
    errors: int
    first_error: str

    @property
    def failed(self) -> bool:
        """Whether the command should exit non-zero."""
        parted = self.options["require_identical"] and self.identity.differ > 0
        return self.errors > 0 or parted

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self) | {"failed": self.failed}, ensure_ascii=False)


def told_options(options: BenchOptions, model: str) -> dict[str, Any]:
    """What a report repeats of the options: not the API key."""
    told = {**dataclasses.asdict(options), "model": model, "prompts": str(options.prompts)}
    told["baseline_generate"] = str(options.baseline_generate or "")
    del told["api_key"]
    return told


def build(options: BenchOptions, model: str, results: Sequence[TurnResult]) -> BenchReport:
    """The report."""
    groups: dict[tuple[int, str], list[TurnResult]] = {}
    for result in results:
        groups.setdefault((result.turn.concurrency, result.turn.mode), []).append(result)
    names = (*options.modes, GENERATE)
    rows = [(c, mode) for c in options.concurrency for mode in names if (c, mode) in groups]
    samples = [sample for result in results for sample in result.samples]
    samples.sort(key=lambda s: s.question.mode != options.modes[0])
    first = [s for s in samples if s.question.mode == options.modes[0] and s.question.round == 0]
    generated = [s for s in samples if s.question.mode == GENERATE]
    comparable = bool(generated) and options.temperature == 0
    failures = [s for s in samples if s.error]
    return BenchReport(
        options=told_options(options, model),
        modes=tuple(mode_stats(groups[c, m], groups[c, options.modes[0]]) for c, m in rows),
        identity=compare(s for s in samples if s.question.mode != GENERATE),
        generate=compare([*first, *generated]) if comparable else None,
        errors=len(failures),
        first_error=f"{failures[0].question.mode}: {failures[0].error}" if failures else "",
    )


def render(report: BenchReport) -> str:
    """The table, then what was found of equality and errors, in words."""
    rows = (_row(stats) for stats in report.modes)
    return plain_table(HEADERS, rows) + _remarks(report)


def _row(stats: ModeStats) -> tuple[str, ...]:
    return (
        stats.mode,
        str(stats.concurrency),
        str(stats.tokens),
        f"{stats.tokens_per_s:.1f}",
        _pair(stats.stream_tokens_per_s, 1, 1),
        _pair(stats.ttft_s, 1000, 0),
        _pair(stats.gap_s, 1000, 0),
        _pair(stats.token_s, 1000, 1),
        _pair(stats.e2e_s, 1, 2),
        f"{stats.ratio.p50:.2f}" if stats.ratio else "-",
        number(stats.full_passes_per_token),
        number(stats.full_rows_per_token),
        number(stats.draft_acceptance),
    )


def _remarks(report: BenchReport) -> str:
    first = report.options["modes"][0]
    lines = [
        "",
        "Pairs are p50 / p90. Time ratio: seconds per token over those of mode "
        f"{first}, paired by prompt, median; passes and rows are the full model's.",
        _told("all modes", report.identity),
    ]
    if report.generate:
        lines.append(_told(f"{first} and {GENERATE}", report.generate))
    if report.errors:
        lines.append(f"errors: {report.errors}, the first: {report.first_error}")
    return "\n".join(lines) + "\n"


def _told(who: str, found: Comparison) -> str:
    if found.first is None:
        return f"{who}: the same text for {found.prompts} of {found.prompts} prompts compared"
    at, (left, right) = found.first, found.first.context
    return (
        f"{who}: different text for {found.differ} of {found.prompts} prompts compared; first "
        f"prompt {at.prompt_id}, {at.modes[0]} and {at.modes[1]} part at character {at.index}: "
        f"{left!r} / {right!r}"
    )


def _pair(found: Spread | None, scale: float, digits: int) -> str:
    if found is None:
        return "-"
    return f"{found.p50 * scale:.{digits}f} / {found.p90 * scale:.{digits}f}"
