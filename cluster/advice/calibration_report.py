"""A calibration as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cluster.advice.calibration import Agreement, Calibration, StepTime
from infra.bench.table import number, plain_table
from policies.vocabulary import Tier

_GAMMAS = (1, 2, 4, 8)


def render(found: Calibration) -> str:
    """Agreement, step times, and what is around them."""
    rows = [("all", found.agreement), *found.categories.items()]
    heads = ("category", "places", "a0", "a1", "a2")
    rounds = tuple(f"round {gamma}" for gamma in _GAMMAS)
    served, settings = found.served, found.settings
    lines = [
        f"{served.model} {served.dtype}, draft {served.draft}; {settings.num_prompts} prompts of "
        f"{settings.prompts}, {settings.max_tokens} tokens, temperature {settings.temperature:g}",
        plain_table((*heads, *rounds), (_agreement(name, each) for name, each in rows)),
        "a0 draft and full, a1 draft and slim, a2 slim and full; round g: tokens that a two-tier "
        "round of g drafted tokens commits.",
        "",
        plain_table(
            ("tier", "threads", "sessions", "rows", "ms p50", "ms p90"),
            (_step(step, found) for step in found.steps),
        ),
        _around(found),
    ]
    return "\n".join(lines) + "\n"


def _agreement(name: str, found: Agreement) -> Sequence[str]:
    rates = (found.draft_full, found.draft_slim, found.slim_full)
    return (
        name,
        str(found.places),
        *(number(rate, 3) for rate in rates),
        *(number(_at(found.round_tokens, gamma)) for gamma in _GAMMAS),
    )


def _at(tokens: Sequence[float], gamma: int) -> float | None:
    return tokens[gamma - 1] if gamma <= len(tokens) else None


def _step(step: StepTime, found: Calibration) -> Sequence[str]:
    return (
        str(step.tier),
        str(found.settings.threads[step.tier]),
        str(step.sessions),
        str(step.rows),
        f"{1000 * step.seconds_p50:.1f}",
        f"{1000 * step.seconds_p90:.1f}",
    )


def _around(found: Calibration) -> str:
    hop, prefill = found.hop, _prefill(found.prefill_token_s.items())
    lines = [
        f"A call: {1000 * hop.wire_s:.2f} ms on the wire ({hop.source}), "
        f"{1000 * hop.router_s:.2f} ms of router and worker.",
        f"Prefill, ms a token: {prefill}; the prompts have {found.prompt_tokens:.0f} on average.",
    ]
    if found.lookup_s is not None:
        lines.append(
            f"Prompt lookup: {1e6 * found.lookup_s:.0f} us; {found.hit_frac:.2f} of the rounds "
            f"have a draft, of {found.length_frac:.2f} of the length asked for."
        )
    return "\n".join(lines)


def _prefill(found: Iterable[tuple[Tier, float]]) -> str:
    return ", ".join(f"{tier} {1000 * seconds:.2f}" for tier, seconds in found)
