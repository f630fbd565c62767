"""How ranks add up their parts of a product, and how rank 0 gets all parts of the logits.

Sums run in rank order, in float32, whatever the number of rows: a ring's order depends on where
a number lies in the message, which would break the law of row invariance (DESIGN section 2).
So all ranks hold the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import distributed


class Exchange(Protocol):
    """Every rank calls the same verbs in the same order."""

    def total(self, part: torch.Tensor) -> torch.Tensor:
        """The sum of all ranks' parts, of one shape and dtype everywhere."""
        ...

    def side_by_side(self, part: torch.Tensor, widths: Sequence[int]) -> torch.Tensor:
        """part: (rows, widths[rank]). On rank 0 (rows, sum of widths); elsewhere the part."""
        ...


def in_order(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum, from the first rank's part to the last's, rounded once."""
    whole = torch.add(parts[0].float(), parts[1].float())
    for part in parts[2:]:
        whole.add_(part)
    return whole.to(parts[0].dtype)


class GroupExchange:
    """Over a process group: NCCL on CUDA, gloo between hosts without it."""

    def __init__(self, group: Any, rank: int, size: int) -> None:
        self._group = group
        self._rank = rank
        self._size = size

    def total(self, part: torch.Tensor) -> torch.Tensor:
        """See Exchange."""
        parts = [torch.empty_like(part) for _ in range(self._size)]
        distributed.all_gather(parts, part.contiguous(), group=self._group)
        return in_order(parts)

    def side_by_side(self, part: torch.Tensor, widths: Sequence[int]) -> torch.Tensor:
        """See Exchange."""
        # Collectives want equal shapes.
        padded = torch.nn.functional.pad(part, (0, max(widths) - part.shape[-1]))
        leads = self._rank == 0
        parts = [torch.empty_like(padded) for _ in widths] if leads else None
        distributed.gather(padded.contiguous(), parts, dst=0, group=self._group)
        if parts is None:
            return part
        cut = [found[:, :width] for found, width in zip(parts, widths, strict=True)]
        return torch.cat(cut, dim=-1)
