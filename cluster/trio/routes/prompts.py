"""Text to judge by from prompts of one's own: the model answers them, and its states are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedModel

from actors.engine.loader import readable
from cluster.trio.routes.judge import Bench, last_hidden
from cluster.trio.stock import load_stock
from cluster.trio.tensors import write_tensors
from cluster.trio.text.lockstep import ANSWER, GIVEN, Chats

_BATCH = 16


def answered(
    bench: Bench,
    prompts: Sequence[str],
    tokens: int,
    seed: int,
    path: Path,
    step: Callable[[int], None] = lambda count: None,
) -> Chats:
    """Chats of at most `tokens` tokens, one a prompt, at the bench's temperature; a prompt keeps
    at most half of them, its last. Written to `path` once and read from there after that; `step`
    is told how many more were answered. Raises ModelError."""
    if not path.exists():
        torch.set_num_threads(bench.threads)
        model = load_stock(bench.model_dir, bench.dtype, bench.device)
        with readable(f"model {bench.model_dir}: tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(bench.model_dir, local_files_only=True)
        texts = [_ids(tokenizer, prompt)[-(tokens // 2) :] for prompt in prompts]
        torch.manual_seed(seed)
        parts: list[Chats] = []
        for first in range(0, len(texts), _BATCH):
            parts.append(_answer(model, texts[first : first + _BATCH], tokens, bench.temperature))
            step(len(parts[-1].ids))
        names = ("ids", "writers", "hidden")
        write_tensors({n: torch.cat([getattr(p, n) for p in parts]) for n in names}, path)
    return Chats(**load_file(path))


def _ids(tokenizer: Any, prompt: str) -> list[int]:
    if not tokenizer.chat_template:
        return tokenizer(prompt)["input_ids"]
    turns = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.inference_mode()
def _answer(
    model: PreTrainedModel, texts: Sequence[Sequence[int]], tokens: int, temperature: float
) -> Chats:
    longest = max(map(len, texts))
    left = torch.zeros((len(texts), longest), dtype=torch.int64)
    seen = torch.zeros_like(left)
    for row, text in enumerate(texts):
        left[row, longest - len(text) :] = torch.tensor(text)
        seen[row, longest - len(text) :] = 1
    how: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    eos = model.generation_config.eos_token_id
    out: Any = model.generate(  # pyright: ignore[reportCallIssue]
        left.to(model.device),
        attention_mask=seen.to(model.device),
        max_new_tokens=tokens - longest,
        pad_token_id=eos[0] if isinstance(eos, list) else eos,
        **how,
    )
    ends = torch.tensor(eos if isinstance(eos, list) else [eos])
    ids = torch.zeros((len(texts), tokens), dtype=torch.int32)
    writers = torch.full((len(texts), tokens), GIVEN, dtype=torch.uint8)
    for row, text in enumerate(texts):
        said = out[row, longest:].cpu()
        stops = torch.isin(said, ends).nonzero()
        said = said[: int(stops[0]) + 1] if len(stops) else said
        end = len(text) + len(said)
        ids[row, :end] = torch.cat([torch.tensor(text), said])
        writers[row, len(text) : end] = ANSWER
    # What stands behind an answer cannot be seen from within it.
    return Chats(ids, writers, last_hidden(model, ids.long()).cpu())
