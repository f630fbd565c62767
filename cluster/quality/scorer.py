"""The full model as a judge of answers: what it would have chosen after the same prefixes.

It knows token ids, one model folder and the server's own engine; no server, no mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from actors.engine import sampler
from actors.engine.build import EngineSpec, TierSource, build_engines
from actors.engine.seam import Context, Extend
from actors.engine.transformers_engine import TransformersEngine
from policies.vocabulary import SamplingParams, SamplingSpec, Tier

STRETCH = 64
"""Rows of logits held at a time."""

TOKEN_BUDGET = 256
GREEDY_BELOW = 1e-5  # as the ingress has it


@dataclass(frozen=True, slots=True)
class Score:
    """Of one answer: its tokens, how many of them are full's own choice after the answer's own
    prefix (the noise of seed and position included), and the sum of their -log p under full's
    unprocessed softmax, in nats."""

    tokens: int
    agreeing: int
    surprise: float


class FullModel:
    """One model with room for one session of `longest` tokens."""

    def __init__(self, model_dir: Path, dtype: str, device: str, longest: int) -> None:
        """Raises ModelError where the folder holds no model that can be served."""
        spec = EngineSpec(
            tiers={Tier.FULL: TierSource(str(model_dir))},
            dtype=dtype,
            device=device,
            num_slots=1,
            slot_tokens=longest,
            token_budget=TOKEN_BUDGET,
        )
        engine = build_engines(spec)[Tier.FULL]
        assert isinstance(engine, TransformersEngine)
        self._engine = engine

    @torch.inference_mode()
    def score(
        self, prompt: Sequence[int], answer: Sequence[int], temperature: float, seed: int
    ) -> Score:
        """Teacher-forced; of the answer with number 0 of its prompt."""
        params = SamplingParams(temperature=temperature if temperature >= GREEDY_BELOW else 0.0)
        sampling = SamplingSpec(params, seed, choice=0, prompt_len=len(prompt))
        context = Context("scored", sampling, tokens=[*prompt, *answer])
        agreeing, surprise = 0, 0.0
        for begin in range(0, len(answer), STRETCH):
            tokens = answer[begin : begin + STRETCH]
            first = len(prompt) + begin
            asked = Extend(context, first + len(tokens) - 1, len(tokens))
            logits = torch.stack(self._engine.logits([asked])[0])
            chosen = sampler.choose(logits, sampling, context.tokens, first)
            agreeing += sum(a == b for a, b in zip(tokens, chosen, strict=True))
            surprise -= sum(t.logprob for t in sampler.token_logprobs(logits, tokens, 0))
        self._engine.release(context.session_id)
        return Score(len(answer), agreeing, surprise)
