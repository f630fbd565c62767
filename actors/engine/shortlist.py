"""Shortened output heads: logits of S of the V ids, and which id each of their columns is.

Everything above the engine sees full ids; exactness does not depend on the list, agreement
with the full model does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from actors.engine.route import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What the columns of logits stand for: `ids` (S,), int64, ascending and below
    `vocab_size`; None where each id has its own column."""

    vocab_size: int
    ids: torch.Tensor | None = None

    def ids_of(self, columns: torch.Tensor) -> torch.Tensor:
        """The ids of some columns, of the same shape."""
        return columns if self.ids is None else self.ids[columns]

    def column_of(self, token: int) -> int | None:
        """The id's column, None where it has none."""
        if self.ids is None:
            return token
        place = int(torch.searchsorted(self.ids, token))
        return place if place < len(self.ids) and int(self.ids[place]) == token else None

    def widen(self, logits: torch.Tensor) -> torch.Tensor:
        """(rows, S) -> (rows, V), -inf where an id has no column."""
        if self.ids is None:
            return logits
        wide = logits.new_full((len(logits), self.vocab_size), float("-inf"))
        return wide.index_copy_(1, self.ids, logits)


class ShortHead(nn.Module):
    """The rows `ids` (S,) of an output head; gives (..., S)."""

    def __init__(self, rows: nn.Linear, ids: torch.Tensor) -> None:
        super().__init__()
        self.rows = rows
        self.ids = nn.Buffer(ids.to(rows.weight.device))

    @classmethod
    def of(cls, head: nn.Linear, ids: torch.Tensor) -> ShortHead:
        """A copy of those rows of a whole head."""
        rows = nn.Linear(head.in_features, len(ids), bias=head.bias is not None, device="meta")
        place = ids.to(head.weight.device)
        rows.weight = nn.Parameter(head.weight.detach()[place], requires_grad=False)
        if head.bias is not None:
            rows.bias = nn.Parameter(head.bias.detach()[place], requires_grad=False)
        return cls(rows, ids)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., hidden)."""
        return self.rows(x)


def read_shortlist(path: Path, vocab_size: int) -> torch.Tensor:
    """The file's `ids` as int64; ModelError unless they are ascending, distinct and below
    `vocab_size`."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"shortlist {path}: {' '.join(str(error).split())}") from error
    if tensors.keys() != {"ids"}:
        raise ModelError(f"shortlist {path}: it must hold one tensor, ids")
    ids = tensors["ids"]
    if ids.dtype not in (torch.int64, torch.int32) or ids.dim() != 1 or not len(ids):
        raise ModelError(f"shortlist {path}: ids must be a list of int64 or int32")
    ids = ids.to(torch.int64)
    if bool((ids.diff() <= 0).any()) or int(ids[0]) < 0 or int(ids[-1]) >= vocab_size:
        raise ModelError(
            f"shortlist {path}: ids must be ascending, distinct and below {vocab_size}"
        )
    return ids
