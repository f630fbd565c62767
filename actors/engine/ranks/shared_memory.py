"""The exchange of ranks on one host: parts lie in memory that all of them see.

A rank writes its part, then its turn number, and waits for the others' numbers; there are two
sets of places, so nobody writes where another may still read. While it waits it gives its core
away: with more ranks than cores, spinning would keep the one that is waited for from running.
"""

from __future__ import annotations

import mmap
import os
import platform
import time
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch

from actors.engine.ranks.exchange import in_order

SHARED_DIR = Path("/dev/shm")
_PLACE_BYTES = 1 << 20
_LINE_BYTES = 64
"""Turn numbers lie in cache lines of their own."""
_YIELDS = 2_000
"""A few milliseconds of giving way; who is later than that is computing or swapped out."""
_NAP_S = 100e-6


def is_ordered() -> bool:
    """Whether this processor shows others a rank's writes in the order it made them, which
    plain stores are trusted with here."""
    return platform.machine() in ("x86_64", "AMD64")


def shared_bytes(size: int) -> int:
    """Bytes of the file that `size` ranks share."""
    return size * _LINE_BYTES + 2 * size * _PLACE_BYTES


class SharedMemoryExchange:
    """Of `size` ranks; the file must be zero when the first rank opens it, and may be unlinked
    once all have."""

    def __init__(self, path: Path, rank: int, size: int) -> None:
        self._rank = rank
        self._others = [other for other in range(size) if other != rank]
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), shared_bytes(size))
        head = size * _LINE_BYTES
        self._numbers = memoryview(self._memory)[:head].cast("q")
        self._step = _LINE_BYTES // 8
        places = torch.frombuffer(self._memory, dtype=torch.uint8, offset=head)
        self._places = places.view(2, size, _PLACE_BYTES)
        self._turn = 0

    def total(self, part: torch.Tensor) -> torch.Tensor:
        """See Exchange."""
        flat = part.reshape(-1)
        whole = torch.empty_like(flat)
        room = _PLACE_BYTES // part.element_size()
        for start in range(0, len(flat), room):
            count = min(room, len(flat) - start)
            places = self._swap(flat[start : start + count])
            whole[start : start + count] = in_order([place[:count] for place in places])
        return whole.view(part.shape)

    def side_by_side(self, part: torch.Tensor, widths: Sequence[int]) -> torch.Tensor:
        """See Exchange."""
        rows = prod(part.shape[:-1])
        flat = part.reshape(-1)
        room = _PLACE_BYTES // part.element_size()
        leads = self._rank == 0
        found = [part.new_empty(rows * width) for width in widths] if leads else []
        for start in range(0, rows * max(widths), room):
            places = self._swap(flat[start : start + room])
            for whole, place in zip(found, places if leads else (), strict=True):
                wanted = whole[start : start + room]
                wanted.copy_(place[: len(wanted)])
        if not leads:
            return part
        return torch.cat([f.view(rows, w) for f, w in zip(found, widths, strict=True)], dim=-1)

    def _swap(self, part: torch.Tensor) -> torch.Tensor:
        """Show the others a part, (numbers,), and see theirs, (ranks, room); valid until the
        turn after the next."""
        self._turn += 1
        places = self._places[self._turn % 2].view(part.dtype)
        places[self._rank, : len(part)] = part
        self._numbers[self._rank * self._step] = self._turn
        for other in self._others:
            self._wait(other * self._step)
        return places

    def _wait(self, index: int) -> None:
        numbers, turn, yields = self._numbers, self._turn, 0
        while numbers[index] < turn:
            if yields < _YIELDS:
                os.sched_yield()
                yields += 1
            else:
                time.sleep(_NAP_S)
