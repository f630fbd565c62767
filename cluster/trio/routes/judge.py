"""Judges a candidate route: how like full it chooses, over prepared rows.

One model in memory, and a second time with int8 linears once such a candidate comes; candidates
share the tensors, so they cost nothing but their forwards.
Stock attention, no cache: this is text that is written already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from actors.engine.int8 import int8_twin
from actors.engine.loader import DTYPES, slim_of
from actors.engine.route import Route
from cluster.trio.likeness import Likeness, likeness, mean
from cluster.trio.routes.rows import Rows
from cluster.trio.stock import load_stock
from cluster.trio.teacher import Head, load_head

_BATCH_TOKENS = 2048
_CHUNK_ROWS = 32
"""Rows whose logits are in memory at a time. More are slower on CPU: with a vocabulary of 49,152
256 rows took twice as long, since they leave the caches."""
_CHUNK_ROWS_GPU = 1024


@dataclass(frozen=True, slots=True)
class Bench:
    """What judges run on. `temperature`: of the coupling M."""

    model_dir: Path
    dtype: str
    device: str
    threads: int
    temperature: float


class Judge:
    """Holds a model and sets of rows."""

    def __init__(self, bench: Bench, sets: Sequence[Rows]) -> None:
        torch.set_num_threads(bench.threads)
        self._bench, self._sets = bench, sets
        self._full = load_stock(bench.model_dir, bench.dtype, bench.device)
        self._int8: PreTrainedModel | None = None
        head = load_head(bench.model_dir, DTYPES[bench.dtype])
        self._head = Head(head.weight.to(self._full.device), head.softcap)
        self._chunk = _CHUNK_ROWS if self._full.device.type == "cpu" else _CHUNK_ROWS_GPU

    @torch.inference_mode()
    def judge(self, route: Route, which: int) -> Likeness:
        """Of the candidate, over the set with number `which`."""
        rows = self._sets[which]
        slim = slim_of(self._of_weights(route.weights), route, None)
        batch = max(1, _BATCH_TOKENS // rows.ids.shape[1])
        hidden = torch.cat(
            [
                last_hidden(slim, ids)[scored.to(slim.device)]
                for ids, scored in zip(rows.ids.split(batch), rows.scored.split(batch), strict=True)
            ]
        )
        pairs = zip(hidden.split(self._chunk), rows.hidden.split(self._chunk), strict=True)
        return mean(
            likeness(
                self._head.capped(slim.lm_head(of_slim)),
                self._head.logits(of_full.to(hidden.device)),
                self._bench.temperature,
            )
            for of_slim, of_full in pairs
        )

    def _of_weights(self, weights: str | None) -> PreTrainedModel:
        if weights is None:
            return self._full
        if self._int8 is None:
            self._int8 = int8_twin(self._full)
        return self._int8


def last_hidden(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """(chats, tokens) -> (chats, tokens, width) after the last norm, on its device."""
    return model.model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
