"""Figures from samples: spreads, rates, paired ratios, first divergence. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from infra.bench.sample import Sample, TurnResult

CONTEXT_CHARS = 24


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 90th percentile (linear interpolation)."""

    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class ModeStats:
    """One mode at one concurrency.

    `ratio` is paired: per prompt, seconds per token over those of the first mode; below 1 is
    faster. `stream_tokens_per_s` is of one answer from asking to its end, `tokens_per_s` of
    all answers over the time of the mode's turns. The last three come from the server's own
    counts: passes and rows of the full model per token, and the part of the drafted tokens
    that was kept.
    """

    mode: str
    concurrency: int
    requests: int
    errors: int
    tokens: int
    tokens_per_s: float
    stream_tokens_per_s: Spread | None
    ttft_s: Spread | None
    gap_s: Spread | None
    token_s: Spread | None
    e2e_s: Spread | None
    ratio: Spread | None
    full_passes_per_token: float | None
    full_rows_per_token: float | None
    draft_acceptance: float | None


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two answers to the same question part: `index` is in characters."""

    prompt_id: str
    modes: tuple[str, str]
    index: int
    context: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many prompts were answered more than once, and how many not always alike."""

    prompts: int
    differ: int
    first: Divergence | None


def spread(values: Iterable[float]) -> Spread | None:
    """None where there is nothing to measure."""
    found = list(values)
    if not found:
        return None
    return Spread(*(float(value) for value in np.percentile(found, (50, 90))))


def mode_stats(results: Sequence[TurnResult], baseline: Sequence[TurnResult]) -> ModeStats:
    """The figures of one mode's turns at one concurrency, beside the first mode's."""
    turn = results[0].turn
    samples = [sample for result in results for sample in result.samples]
    good = [sample for sample in samples if sample.ok]
    tokens = sum(sample.tokens for sample in good)
    return ModeStats(
        mode=turn.mode,
        concurrency=turn.concurrency,
        requests=len(samples),
        errors=len(samples) - len(good),
        tokens=tokens,
        tokens_per_s=tokens / sum(result.wall_s for result in results),
        stream_tokens_per_s=spread(s.tokens / s.e2e_s for s in good),
        ttft_s=spread(s.chunk_s[0] for s in good if s.chunk_s),
        gap_s=spread(gap for s in good for gap in s.gaps_s),
        token_s=spread((s.e2e_s - s.chunk_s[0]) / (s.tokens - 1) for s in good if _decoded(s)),
        e2e_s=spread(s.e2e_s for s in good),
        ratio=spread(paired_ratios(results, baseline)),
        full_passes_per_token=per(good, "full_passes", "tokens"),
        full_rows_per_token=per(good, "full_rows", "tokens"),
        draft_acceptance=per(good, "draft", "draft_tokens"),
    )


def paired_ratios(results: Iterable[TurnResult], baseline: Iterable[TurnResult]) -> list[float]:
    """Per prompt that both answered: mean seconds per token, over the baseline's."""
    ours, theirs = _seconds_per_token(results), _seconds_per_token(baseline)
    return [fmean(ours[key]) / fmean(theirs[key]) for key in ours if key in theirs]


def compare(samples: Iterable[Sample]) -> Comparison:
    """All answers to a prompt must be the same text; the first answer is the measure."""
    answers: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.ok:
            answers[sample.question.prompt.id].append(sample)
    repeated = [group for group in answers.values() if len(group) > 1]
    parted = [(group[0], other) for group in repeated if (other := _other_than_first(group))]
    return Comparison(len(repeated), len(parted), _divergence(*parted[0]) if parted else None)


def _decoded(sample: Sample) -> bool:
    return bool(sample.chunk_s) and sample.tokens > 1


def _seconds_per_token(results: Iterable[TurnResult]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for result in results:
        for sample in result.samples:
            if sample.ok:
                found[sample.question.prompt.id].append(sample.e2e_s / sample.tokens)
    return found


def per(samples: Iterable[Sample], numerator: str, denominator: str) -> float | None:
    """Sum over sum, of the server's counts; None where no sample carries both."""
    counts = [
        {**sample.server, **(sample.server.get("tokens_by_tier") or {}), "tokens": sample.tokens}
        for sample in samples
    ]
    told = [count for count in counts if numerator in count and denominator in count]
    below = sum(count[denominator] for count in told)
    return sum(count[numerator] for count in told) / below if below else None


def _other_than_first(group: Sequence[Sample]) -> Sample | None:
    return next((sample for sample in group if sample.text != group[0].text), None)


def _divergence(one: Sample, other: Sample) -> Divergence:
    pairs = zip(one.text, other.text, strict=False)
    shorter = min(len(one.text), len(other.text))
    index = next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)
    begin, end = max(0, index - CONTEXT_CHARS), index + CONTEXT_CHARS
    named = [f"{s.question.mode}@{s.question.concurrency}" for s in (one, other)]
    context = (one.text[begin:end], other.text[begin:end])
    return Divergence(one.question.prompt.id, (named[0], named[1]), index, context)
