"""Figures of each arm from its answers and their scores. Pure.

Rejection rate and full rate are DESIGN section 3's, and neither stands in for the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.quality.scorer import Score
from infra.bench.sample import Sample, TurnResult
from infra.bench.stats import mode_stats, per

Key = tuple[str, tuple[int, ...]]
"""Prompt id and answer: modes that answer alike are scored once."""


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """One arm. None: nothing to measure it by.

    `agreement`: share of the answers' tokens that are full's own choice. `perplexity`: exp of
    their mean -log p under full. `rejection_rate`: drafted tokens not committed as drafted, over
    those that were judged. `full_rate`: committed tokens for which full scored a row, over
    committed tokens. `time_ratio`: seconds per token over the first arm's, paired by prompt,
    median. `same_text`: share of the prompts answered with the first arm's text. `audit_level`:
    the highest in an answer; above 0 the gate was tighter than asked for.
    """

    mode: str
    requests: int
    errors: int
    tokens: int
    agreement: float | None
    perplexity: float | None
    rejection_rate: float | None
    full_rate: float | None
    full_passes_per_token: float | None
    full_rows_per_token: float | None
    draft_tokens_per_token: float | None
    tokens_per_s: float
    time_ratio: float | None
    same_text: float | None
    audit_level: int | None

    @property
    def speedup(self) -> float | None:
        """Tokens/s over the first arm's, by the paired ratio."""
        return 1 / self.time_ratio if self.time_ratio else None


def key_of(sample: Sample) -> Key:
    """What a sample's score is found by."""
    return sample.question.prompt.id, sample.token_ids


def arm_figures(
    results: Sequence[TurnResult], first: Sequence[TurnResult], scores: Mapping[Key, Score]
) -> ArmFigures:
    """The figures of one arm's turns beside the first arm's."""
    stats = mode_stats(results, first)
    good = [sample for result in results for sample in result.samples if sample.ok]
    found = [scores[key_of(sample)] for sample in good]
    tokens = sum(score.tokens for score in found)
    kept = per(good, "draft", "draft_judged")
    unseen = per(good, "unseen", "tokens")
    levels = [sample.server["audit"]["level"] for sample in good if "audit" in sample.server]
    return ArmFigures(
        mode=stats.mode,
        requests=stats.requests,
        errors=stats.errors,
        tokens=stats.tokens,
        agreement=sum(score.agreeing for score in found) / tokens if tokens else None,
        perplexity=math.exp(sum(s.surprise for s in found) / tokens) if tokens else None,
        rejection_rate=None if kept is None else 1 - kept,
        # An exact mode tells of no unseen tokens: it has none.
        full_rate=1 - (unseen or 0.0) if good else None,
        full_passes_per_token=_with_looks(stats.full_passes_per_token, good, "audit_passes"),
        full_rows_per_token=_with_looks(stats.full_rows_per_token, good, "audit_rows"),
        draft_tokens_per_token=per(good, "draft_tokens", "tokens"),
        tokens_per_s=stats.tokens_per_s,
        time_ratio=stats.ratio.p50 if stats.ratio else None,
        same_text=_same_text(good, first),
        audit_level=max(levels, default=None),
    )


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both coordinates (higher is better), from
    the lowest to the highest first coordinate."""
    order = sorted(range(len(points)), key=lambda i: points[i], reverse=True)
    best, kept = -math.inf, []
    for i in order:
        if points[i][1] > best:
            best = points[i][1]
            kept.append(i)
    return kept[::-1]


def _same_text(good: Sequence[Sample], first: Sequence[TurnResult]) -> float | None:
    texts = {s.question.prompt.id: s.text for r in first for s in r.samples if s.ok}
    pairs = [(s.text, texts[s.question.prompt.id]) for s in good if s.question.prompt.id in texts]
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def _with_looks(own: float | None, good: Sequence[Sample], name: str) -> float | None:
    """A cost of full with that of the audit's background looks, which only `via` has."""
    return None if own is None else own + (per(good, name, "tokens") or 0.0)
