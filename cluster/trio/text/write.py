"""The job of `python -m cluster corpus`: a model writes chats with itself, shard after shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from actors.engine.loader import load_config, readable
from actors.engine.route import fingerprint
from cluster.console.progress import Bars
from cluster.trio.stock import load_stock
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
    tokenizer = _tokenizer(job.model_dir)
    model: Any = load_stock(job.model_dir, job.dtype, job.device, ATTENTION_NAME)
    eos = model.generation_config.eos_token_id
    turns = turns_of(tokenizer, eos if isinstance(eos, list) else [eos])
    openers = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in job.openers]
    free: list[Sequence[int]] = [()] * round(len(openers) * FREE / (1 - FREE))
    per_step, per_shard = job.chats, job.chats * job.recipe.tokens
    with Bars() as bars:
        begun = (job.shards - len(missing)) * per_shard
        bar = bars.bar("tokens", job.shards * per_shard, begun)
        for index in missing:
            written = write_chats(
                model,
                turns,
                [*openers, *free],
                job.recipe,
                job.chats,
                job.seed + index,
                lambda: bar.on(per_step),
            )
            corpus.write(index, written)


def _tokenizer(model_dir: Path) -> Any:
    with readable(f"model {model_dir}: tokenizer"):
        return AutoTokenizer.from_pretrained(
            model_dir, trust_remote_code=False, local_files_only=True
        )
