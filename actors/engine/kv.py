"""Key/value slots: which session sits where, how much of it is cached, and the tensors.

One slot holds one session's keys and values contiguously, so that attention reads views and
truncation is a number. Idle sessions give their slot up, least recently used first; they are
computed anew from their token ids when they come back.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import Cache

from actors.engine.seam import NoRoom


@dataclass(slots=True)
class Slot:
    """One session's place. `ids` are the tokens whose keys and values are valid."""

    index: int
    ids: list[int]
    last_used: int = 0


class SlotTable:
    """Gives slots to sessions; knows no tensor."""

    def __init__(self, num_slots: int, slot_tokens: int) -> None:
        self.num_slots = num_slots
        self.slot_tokens = slot_tokens
        self._slots: dict[str, Slot] = {}
        # Lowest index first, so that busy slots lie side by side and share a view.
        self._free = list(range(num_slots))
        self._clock = 0

    def acquire(self, session_id: str, keep: Collection[str]) -> Slot:
        """The session's slot, a free one, or that of the longest idle session not in `keep`."""
        self._clock += 1
        slot = self._slots.get(session_id)
        if slot is None:
            if not self._free:
                self._evict(keep)
            slot = self._slots[session_id] = Slot(heapq.heappop(self._free), [])
        slot.last_used = self._clock
        return slot

    def get(self, session_id: str) -> Slot | None:
        """The session's slot, if it has one."""
        return self._slots.get(session_id)

    def truncate(self, session_id: str, length: int) -> None:
        """Forget the session's tokens from position `length` on."""
        if (slot := self._slots.get(session_id)) is not None:
            del slot.ids[length:]

    def release(self, session_id: str) -> None:
        """Give the session's slot back; unknown ids are ignored."""
        if (slot := self._slots.pop(session_id, None)) is not None:
            heapq.heappush(self._free, slot.index)

    def _evict(self, keep: Collection[str]) -> None:
        idle = [(slot.last_used, sid) for sid, slot in self._slots.items() if sid not in keep]
        if not idle:
            raise NoRoom(f"{len(keep)} sessions in one step, {self.num_slots} slots")
        self.release(min(idle)[1])

    @property
    def cached_tokens(self) -> int:
        """Tokens held in all slots."""
        return sum(len(slot.ids) for slot in self._slots.values())

    def __len__(self) -> int:
        return len(self._slots)

    def check_integrity(self) -> None:
        """Every slot is free or held by one session, and none is overfull."""
        held = [slot.index for slot in self._slots.values()]
        assert sorted(held + self._free) == list(range(self.num_slots)), (held, self._free)
        for sid, slot in self._slots.items():
            assert len(slot.ids) <= self.slot_tokens, (sid, len(slot.ids))


class SlotCache(Cache):
    """The tensors of all slots, filled through transformers' cache seam.

    Per layer two tensors of shape (slots, kv_heads, slot_tokens, head_dim). On CPU they are
    float32 whatever the model's dtype: float32 products of small matrices are faster there
    than bf16 ones and bitwise row-invariant (docs/decisions.md); the pages are committed by
    the system when first written.
    """

    def __init__(
        self,
        layers: Collection[tuple[int, int, int]],
        num_slots: int,
        slot_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """`layers`: (layer index, kv heads, head dim) of every layer that caches."""
        super().__init__(layers=[])
        self.dtype = torch.float32 if device.type == "cpu" else dtype
        self.tensors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for index, heads, dim in layers:
            shape = (num_slots, heads, slot_tokens, dim)
            self.tensors[index] = (
                zeros(shape, self.dtype, device),
                zeros(shape, self.dtype, device),
            )
        self.spans: list[tuple[int, int, int, int]] = []
        self._device = device
        self._rows: tuple[torch.Tensor, ...] = ()

    def place(self, spans: Sequence[tuple[int, int, int, int]]) -> None:
        """Where the next step's rows go: (slot, position, first row, number of rows) of each
        session; all rows of the pack up to its padding, in order."""
        self.spans = list(spans)
        if len(self.spans) > 1:
            slots = [slot for slot, _, _, count in spans for _ in range(count)]
            places = [at + i for _, at, _, count in spans for i in range(count)]
            self._rows = tuple(torch.tensor((slots, places), device=self._device))

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one token of one session takes over all layers."""
        return sum(2 * k.shape[1] * k.shape[3] * k.element_size() for k, _ in self.tensors.values())

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the packed rows (1, kv_heads, rows, head_dim) of the step into their slots.

        `place` was told where. Returns the tensors of all slots; the attention function picks
        its views.
        """
        keys, values = self.tensors[layer_idx]
        if len(self.spans) == 1:
            [(slot, position, _, count)] = self.spans
            keys[slot, :, position : position + count] = key_states[0, :, :count]
            values[slot, :, position : position + count] = value_states[0, :, :count]
            return keys, values
        # One scatter of all rows: a write for each session would cost more than the products.
        slots, places = self._rows
        count = len(slots)
        keys[slots, :, places] = key_states[0, :, :count].transpose(0, 1).to(keys.dtype)
        values[slots, :, places] = value_states[0, :, :count].transpose(0, 1).to(values.dtype)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The stock classes ask only for positions, which every step states explicitly."""
        return 0


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Of the dtype; on CPU float32 and through numpy, which leaves the pages to be committed when
    they are written: torch.zeros would write them all."""
    if device.type == "cpu":
        return torch.from_numpy(np.zeros(shape, np.float32))
    return torch.zeros(shape, dtype=dtype, device=device)
