"""The trio's commands: their options. The jobs are imported when one runs: they load torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

OPENERS = Path(__file__).parent / "openers.txt"
"""Beginnings of questions of the kinds that Spec-Bench has: conversation, translation,
summarisation, question answering, maths, text with passages."""


def corpus(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    out: Annotated[Path, typer.Option(help="The folder of the text.")],
    shards: Annotated[int, typer.Option(min=1, help="Shards in all; those there are kept.")] = 8,
    chats: Annotated[int, typer.Option(min=1, help="Chats of a shard, side by side.")] = 224,
    tokens: Annotated[int, typer.Option(min=64, help="Of each chat.")] = 384,
    openers: Annotated[Path, typer.Option(help="Beginnings of questions, one a line.")] = OPENERS,
    seed: Annotated[int, typer.Option()] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    device: Annotated[str, typer.Option()] = "cpu",
    threads: Annotated[int, typer.Option(help="Compute threads; 0: all cores.")] = 0,
) -> None:
    """Let a model write chats with itself; go on where a run before was ended."""
    import torch

    from cluster.trio.lockstep import Recipe
    from cluster.trio.write import CorpusJob, write_corpus

    if threads:
        torch.set_num_threads(threads)
    lines = tuple(line for line in openers.read_text().splitlines() if line.strip())
    recipe = Recipe(tokens=tokens)
    write_corpus(CorpusJob(model, out, lines, shards, chats, recipe, seed, dtype, device))
