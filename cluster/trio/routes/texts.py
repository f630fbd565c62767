"""Where a search's rows come from: a corpus, or prompts that the model answers first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from actors.engine.route import ModelError
from cluster.trio.begun import content_of
from cluster.trio.routes.judge import Bench
from cluster.trio.routes.prompts import answered
from cluster.trio.routes.rows import Rows, split_rows
from cluster.trio.text.corpus import RECIPE, Corpus
from infra.bench.options import load_prompts


@dataclass(frozen=True, slots=True)
class Text:
    """A corpus folder or a file of prompts, one of them; how many rows the search and the
    held-out table take, and how many tokens of each chat."""

    corpus: Path | None
    prompts: Path | None
    rows: int = 1024
    held_out_rows: int = 2048
    chat_tokens: int = 192

    def settings(self) -> dict[str, Any]:
        """The text by its content, and the sizes. Raises ModelError."""
        path = self.corpus / RECIPE if self.corpus else self.prompts
        assert path is not None
        try:
            name = content_of(path)
        except OSError as error:
            raise ModelError(f"text {path}: {error.strerror}") from None
        sizes = ("rows", "held_out_rows", "chat_tokens")
        return {"text": name} | {size: getattr(self, size) for size in sizes}

    def read(self, bench: Bench, model: str, seed: int, answers: Path) -> tuple[Rows, ...]:
        """The search's rows and the held-out ones; the prompts' answers are kept in `answers`.
        Raises ModelError and BenchError."""
        counts = (self.rows, self.held_out_rows)
        if self.corpus:
            corpus = Corpus(self.corpus)
            corpus.check(model)
            return split_rows(map(corpus.read, corpus.shards()), counts, self.chat_tokens)
        assert self.prompts is not None
        prompts = [prompt.text for prompt in load_prompts(self.prompts)]
        with Progress(disable=answers.exists()) as progress:
            task = progress.add_task("answers", total=len(prompts))
            chats = answered(
                bench,
                prompts,
                self.chat_tokens,
                seed,
                answers,
                lambda count: progress.advance(task, count),
            )
        return split_rows([chats], counts, self.chat_tokens)
