"""The job of `python -m cluster corpus`: a model writes chats with itself, shard after shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.engine.loader import DTYPES, load_config, readable
from actors.engine.route import fingerprint
from cluster.trio.text.corpus import Corpus
from cluster.trio.text.lockstep import ATTENTION_NAME, Recipe, write_chats
from cluster.trio.text.turns import turns_of

FREE = 0.3
"""Share of the questions that the model begins itself."""


@dataclass(frozen=True, slots=True)
class CorpusJob:
    """What is written where. Shard i has seed `seed` + i and holds `chats` chats."""

    model_dir: Path
    folder: Path
    openers: tuple[str, ...]
    shards: int
    chats: int
    recipe: Recipe
    seed: int
    dtype: str
    device: str


def write_corpus(job: CorpusJob) -> None:
    """Write the shards that are missing. Raises ModelError."""
    load_config(job.model_dir)
    corpus = Corpus(job.folder)
    what = {"model": fingerprint(job.model_dir), "dtype": job.dtype, "seed": job.seed}
    corpus.claim(what | {"chats": job.chats, "openers": job.openers} | asdict(job.recipe))
    missing = sorted(set(range(job.shards)) - set(corpus.shards()))
    model, tokenizer = _load(job)
    eos = model.generation_config.eos_token_id
    turns = turns_of(tokenizer, eos if isinstance(eos, list) else [eos])
    openers = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in job.openers]
    free: list[Sequence[int]] = [()] * round(len(openers) * FREE / (1 - FREE))
    per_step, per_shard = job.chats, job.chats * job.recipe.tokens
    with Progress() as progress:
        task = progress.add_task("tokens", total=job.shards * per_shard)
        progress.update(task, completed=(job.shards - len(missing)) * per_shard)
        for index in missing:
            written = write_chats(
                model,
                turns,
                [*openers, *free],
                job.recipe,
                job.chats,
                job.seed + index,
                lambda: progress.advance(task, per_step),
            )
            corpus.write(index, written)


def _load(job: CorpusJob) -> tuple[Any, Any]:
    local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    auto: Any = AutoModelForCausalLM
    with readable(f"model {job.model_dir}"):
        model = auto.from_pretrained(
            job.model_dir,
            dtype=DTYPES[job.dtype],
            attn_implementation=ATTENTION_NAME,
            use_safetensors=True,
            **local,
        )
        tokenizer = AutoTokenizer.from_pretrained(job.model_dir, **local)
    return model.to(torch.device(job.device)).eval(), tokenizer
