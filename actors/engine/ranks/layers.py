"""What stands in a rank's model where a product is split over the ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from actors.engine.ranks.exchange import Exchange


class SummedLinear(nn.Module):
    """A product over this rank's share of the inputs; the ranks' results are added up. `linear`
    has no bias: it is added once, behind."""

    def __init__(self, linear: nn.Linear, bias: torch.Tensor | None, exchange: Exchange) -> None:
        super().__init__()
        self.linear = linear
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._exchange = exchange

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., this rank's inputs)."""
        whole = self._exchange.total(self.linear(x))
        return whole if self.bias is None else whole + self.bias


class SplitHead(nn.Module):
    """This rank's columns of the output head, `widths[rank]` of them; rank 0 gets them all."""

    def __init__(self, linear: nn.Linear, widths: Sequence[int], exchange: Exchange) -> None:
        super().__init__()
        self.linear = linear
        self._widths = tuple(widths)
        self._exchange = exchange

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (1, rows, hidden). Gives (1, rows, V) on rank 0, its own columns elsewhere."""
        return self._exchange.side_by_side(self.linear(x)[0], self._widths)[None]
