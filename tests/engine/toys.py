"""Random models of a few thousand weights, saved as transformers would save real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from actors.engine.grammar import Grammars
from actors.engine.route import fingerprint
from actors.engine.seam import Context
from actors.engine.transformers_engine import TransformersEngine
from policies.vocabulary import SamplingParams, SamplingSpec

CPU = torch.device("cpu")
VOCAB = 256
WINDOW = 40
"""Gemma2's sliding window in tokens; tests use longer sequences."""

# Rounded weights of this size give logits that are neither flat nor one-hot.
_SHARED: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

CONFIGS: dict[str, Callable[..., PretrainedConfig]] = {
    "llama": lambda **more: LlamaConfig(**_SHARED | more),
    "qwen3": lambda **more: Qwen3Config(**_SHARED | {"head_dim": 32} | more),
    "gemma2": lambda **more: Gemma2Config(
        **_SHARED
        | {
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 10.0,
        }
        | more
    ),
}
ARCHITECTURES = tuple(CONFIGS)


def toy_model(architecture: str, seed: int = 0, **more: Any) -> PreTrainedModel:
    """A float32 model with random weights."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(CONFIGS[architecture](**more), dtype=torch.float32)


def save_toy(path: Path, architecture: str, seed: int = 0, **more: Any) -> Path:
    """Save a toy model; returns `path`."""
    toy_model(architecture, seed, **more).save_pretrained(path)
    return path


def save_words(path: Path) -> Path:
    """Save a tokenizer of words t0, t1, … beside a toy model; returns `path`."""
    words = Tokenizer(WordLevel({f"t{i}": i for i in range(VOCAB)}, unk_token="t0"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="t1", eos_token="t2")
    tokenizer.save_pretrained(path)
    return path


def save_route(path: Path, model_dir: Path, num_layers: int, kept: Sequence[int]) -> Path:
    """Write a route of the toy that lies there; returns `path`."""
    content = {"model_fingerprint": fingerprint(model_dir), "num_layers": num_layers}
    path.write_text(json.dumps(content | {"kept_layers": list(kept)}))
    return path


def text(seed: int, length: int, vocab_size: int = VOCAB) -> list[int]:
    """Random token ids above the special ones."""
    return np.random.default_rng(seed).integers(3, vocab_size, length).tolist()


def context(
    session_id: str,
    tokens: Sequence[int],
    params: SamplingParams | None = None,
    seed: int = 0,
    prompt_len: int | None = None,
    stop_ids: frozenset[int] = frozenset(),
) -> Context:
    """A session as a worker holds it."""
    length = len(tokens) if prompt_len is None else prompt_len
    sampling = SamplingSpec(params or SamplingParams(), seed, choice=0, prompt_len=length)
    return Context(session_id, sampling, stop_ids, list(tokens))


def make_engine(
    model: PreTrainedModel,
    num_slots: int = 4,
    slot_tokens: int = 256,
    token_budget: int = 64,
    vocab_size: int | None = None,
    grammars: Grammars | None = None,
    row_invariant: bool = True,
    stop_below: float = 0.0,
) -> TransformersEngine:
    """An engine with room for a test."""
    return TransformersEngine(
        model,
        num_slots=num_slots,
        slot_tokens=slot_tokens,
        token_budget=token_budget,
        vocab_size=vocab_size,
        grammars=grammars,
        row_invariant=row_invariant,
        stop_below=stop_below,
    )
