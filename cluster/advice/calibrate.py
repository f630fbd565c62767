"""The job of `python -m cluster calibrate`: a config's trio, measured on this machine.

In one process and one tier at a time: what workers that share cores cost each other while both
compute is not in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from actors.engine.build import build_engines
from actors.engine.seam import Engine
from actors.ingress.errors import ApiError
from actors.ingress.text import TextCodec
from cluster import hop
from cluster.advice.answers import (
    Answered,
    Asked,
    Examiner,
    Reach,
    agreement,
    curves,
    drafted_share,
)
from cluster.advice.calibration import Agreement, Calibration, Hop, Places, Served, Settings
from cluster.advice.overhead import router_call_s
from cluster.advice.steps import Grid, time_steps
from cluster.console.progress import Bars
from cluster.preflight import Facts
from cluster.sizes import threads_of
from infra.bench import BenchError
from infra.bench.options import Prompt
from policies.vocabulary import SamplingParams, Tier

HOPS = 300
_SIDE_BY_SIDE = 8
"""Prompts that are answered together; the law of row invariance keeps their answers."""


@dataclass(frozen=True, slots=True)
class CalibrateJob:
    """What to measure. `sessions`: how many share a timed step; `hop_s`: None measures it."""

    facts: Facts
    prompts: tuple[Prompt, ...]
    prompts_file: Path
    max_tokens: int
    temperature: float
    seed: int
    sessions: tuple[int, ...]
    context_tokens: int
    repeats: int
    hop_s: float | None = None

    def reach(self) -> Reach:
        """As far as a request may ask."""
        plan = self.facts.config.plan
        return Reach(plan.max_gamma, plan.max_block, plan.gamma)


def calibrate(job: CalibrateJob) -> Calibration:
    """Measure all of it. Raises BenchError for prompts that do not fit, ModelError."""
    disable_progress_bar()
    asked = _asked(job)
    engines, threads, budgets = _engines(job, max(len(each.ids) for each in asked))

    def use(tier: Tier) -> None:
        if threads[tier]:
            torch.set_num_threads(threads[tier])

    lookup = job.facts.sources.get(Tier.DRAFT)
    if lookup is not None and lookup.model_dir is not None and not lookup.lookup:
        lookup = None
    params = SamplingParams(temperature=job.temperature)
    examiner = Examiner(engines, lookup, params, job.seed, job.facts.eos_ids, use)
    # The hop first: Ray's processes are gone before anything else is timed.
    hop_found = _hop(job)
    with Bars() as bars:
        answered = bars.bar("answers", len(asked))
        answers = _examined(job, examiner, asked, answered.on)
        text = [token for each in answers for token in (*each.asked.ids, *each.ids)]
        grid = Grid(job.sessions, job.context_tokens, job.repeats, text, params)
        models = {tier: engines[tier] for tier in threads if tier in engines}
        timed = bars.bar("looks at each step", job.repeats)
        steps = time_steps(models, grid, budgets, use, timed.on)
    reach = job.reach()
    hit_frac, length_frac = drafted_share(answers, reach)
    prefilled = examiner.prefilled
    return Calibration(
        served=_served(job),
        settings=Settings(
            prompts=job.prompts_file.name,
            num_prompts=len(asked),
            max_tokens=job.max_tokens,
            temperature=job.temperature,
            seed=job.seed,
            context_tokens=job.context_tokens,
            repeats=job.repeats,
            threads={tier: threads[tier] or torch.get_num_threads() for tier in models},
        ),
        agreement=agreement(answers, reach),
        categories=_by_category(answers, reach),
        curves=curves(answers, reach),
        hit_frac=hit_frac,
        length_frac=length_frac,
        steps=steps,
        lookup_s=statistics.median(examiner.lookup_s) if examiner.lookup_s else None,
        hop=hop_found,
        prompt_tokens=statistics.fmean(len(each.ids) for each in asked),
        prefill_token_s={tier: s / prefilled for tier, s in examiner.prefill_s.items()},
        answers=tuple(_places(each, reach) for each in answers),
    )


def _asked(job: CalibrateJob) -> list[Asked]:
    codec = TextCodec.load(str(job.facts.model_dir))
    found = [Asked(_encoded(codec, prompt.text), prompt.category) for prompt in job.prompts]
    longest = job.facts.config.model.context - job.max_tokens
    fitting = [each for each in found if len(each.ids) <= longest]
    if not fitting:
        raise BenchError(f"no prompt leaves {job.max_tokens} tokens of the model's context")
    return fitting


def _encoded(codec: TextCodec, text: str) -> tuple[int, ...]:
    """As a chat of one message, or as plain text where the model has no chat template."""
    try:
        return tuple(codec.chat([{"role": "user", "content": text}]))
    except ApiError:
        return tuple(codec.encode(text))


def _engines(
    job: CalibrateJob, longest_prompt: int
) -> tuple[dict[Tier, Engine], dict[Tier, int], dict[Tier, int]]:
    """Each tier as the pool with most tiers that hosts it builds it, with its threads (0:
    torch's) and its rows of one forward. Caches are as large as the measurement needs."""
    facts = job.facts
    engines: dict[Tier, Engine] = {}
    threads: dict[Tier, int] = {}
    budgets: dict[Tier, int] = {}
    slots = max(*job.sessions, _SIDE_BY_SIDE)
    room = max(longest_prompt + job.max_tokens, job.context_tokens)
    # A draft that reads full's hidden states is built beside full.
    pools = sorted(facts.config.pools.values(), key=lambda pool: -len(pool.tiers))
    for pool in pools:
        new = {t: facts.sources[t] for t in pool.tiers if t not in engines}
        if not new:
            continue
        spec = replace(facts.engine(pool), tiers=new, num_slots=slots, slot_tokens=room)
        for tier, engine in build_engines(spec).items():
            engines[tier] = engine
            if new[tier].model_dir is not None:
                threads[tier] = threads_of(pool) if pool.device == "cpu" else 0
                budgets[tier] = pool.token_budget
    return engines, threads, budgets


def _examined(
    job: CalibrateJob, examiner: Examiner, asked: Sequence[Asked], step: Callable[[int], None]
) -> list[Answered]:
    found: list[Answered] = []
    for begin in range(0, len(asked), _SIDE_BY_SIDE):
        group = asked[begin : begin + _SIDE_BY_SIDE]
        found += examiner.examine(group, job.max_tokens, job.reach().gamma)
        step(len(group))
    return found


def _by_category(answers: Sequence[Answered], reach: Reach) -> dict[str, Agreement]:
    names = sorted({each.asked.category for each in answers} - {""})
    return {
        name: agreement([each for each in answers if each.asked.category == name], reach)
        for name in names
    }


def _places(answered: Answered, reach: Reach) -> Places:
    return Places(
        prompt_tokens=len(answered.asked.ids),
        length=len(answered.ids),
        drafted=answered.screens(Tier.FULL, reach.gamma),
        screened=answered.screens(Tier.SLIM, reach.gamma),
        slim=answered.blocks(reach.block),
        found=answered.found,
    )


def _hop(job: CalibrateJob) -> Hop:
    router_s = router_call_s()
    if job.hop_s is not None:
        return Hop(job.hop_s, router_s, "given")
    return Hop(statistics.median(hop.measure(HOPS)), router_s, "measured")


def _served(job: CalibrateJob) -> Served:
    facts, controller = job.facts, job.facts.controller()
    config = facts.config
    full = next(pool for pool in config.pools.values() if Tier.FULL in pool.tiers)
    return Served(
        model=config.model.name,
        fingerprint=facts.fingerprint,
        dtype=facts.dtype,
        draft=config.draft.kind if config.draft is not None else "none",
        gamma=config.plan.gamma,
        block=config.plan.block,
        max_gamma=controller.max_gamma,
        max_block=controller.max_block,
        decode_tokens=config.router.decode_tokens,
        one_worker=any(
            set(pool.tiers) >= {Tier.DRAFT, Tier.FULL} for pool in config.pools.values()
        ),
        slots=full.slots,
        token_budget=full.token_budget,
    )
