"""Last hidden states beside the key/value slots: what a draft in the same worker reads of full.

One row a cached token, where it lies; they never leave the worker. It knows slots by their
number and no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from actors.engine.attention import Span
from actors.engine.kv import zeros


class FeatureTable:
    """(slots, slot_tokens, width) of hidden states after the last norm; a row is valid as long as
    the slot's token at its place is cached."""

    def __init__(
        self, num_slots: int, slot_tokens: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._rows = zeros((num_slots, slot_tokens, width), dtype, device)

    def write(self, spans: Sequence[Span], hidden: torch.Tensor) -> None:
        """The rows of a step, (rows, width), to their places."""
        for s in spans:
            here = slice(s.position, s.position + s.count)
            self._rows[s.slot, here] = hidden[s.row : s.row + s.count]

    def read(self, slot: int, first: int, end: int) -> torch.Tensor:
        """Of the tokens at positions `first` to `end`: a view, (end - first, width)."""
        return self._rows[slot, first:end]
