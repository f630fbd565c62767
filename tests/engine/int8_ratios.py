"""Prints how long int8 takes over packed bf16, by shape and rows; no test.

`python -m tests.engine.int8_ratios`. Shapes of SmolLM2-135M, one thread, the two interleaved in
one process, medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from actors.engine.int8 import Int8Linear
from actors.engine.packed import PackedLinear

SHAPES = {
    "q, o": (576, 576),
    "k, v": (192, 576),
    "gate, up": (1536, 576),
    "down": (576, 1536),
    "head 8,192": (8192, 576),
    "head 49,152": (49152, 576),
}
ROWS = (1, 2, 4, 8, 16)
COPIES_BYTES = 64 << 20
"""Weights gone through in turn: those of a model come from memory, not from the cache."""


def main() -> None:
    """A table: microseconds of packed bf16 and of int8, and their ratio."""
    torch.set_num_threads(1)
    print(f"{'shape':>12}", *(f"{rows:>22}" for rows in ROWS))
    for name, (out_features, in_features) in SHAPES.items():
        copies = max(2, COPIES_BYTES // (2 * out_features * in_features))
        dense = [
            nn.Linear(in_features, out_features, bias=False, dtype=torch.bfloat16)
            for _ in range(copies)
        ]
        packed, int8 = [PackedLinear(x) for x in dense], [Int8Linear(x) for x in dense]
        cells: list[str] = []
        for rows in ROWS:
            x = torch.randn(rows, in_features, dtype=torch.bfloat16)
            us = _medians_us(packed, int8, x)
            cells.append(f"{us[0]:8.0f} {us[1]:7.0f} {us[1] / us[0]:5.2f}")
        print(f"{name:>12}", *cells)


@torch.inference_mode()
def _medians_us(
    packed: list[PackedLinear], int8: list[Int8Linear], x: torch.Tensor
) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(max(1, 600 // len(packed))):
        for pair in zip(packed, int8, strict=True):
            for taken, module in zip(times, pair, strict=True):
                taken.append(_seconds(module, x))
    return statistics.median(times[0]) * 1e6, statistics.median(times[1]) * 1e6


def _seconds(module: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
    begin = time.perf_counter()
    module(x)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
