"""The shared noise: G(seed, choice, position, token id), the same on every tier and device.

A counter-based integer hash, so there is no generator state to carry or to lose. This is the
numpy law; `actors.engine.noise` computes the same integers in torch. DESIGN section 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK64 = (1 << 64) - 1

U32 = NDArray[np.uint32]
F64 = NDArray[np.float64]


def _splitmix64(x: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014) on one 64-bit word."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)


def noise_keys(seed: int, choice: int, position: int) -> tuple[int, int, int, int]:
    """Four 32-bit words that key the hash of one position; the odd ones are multipliers.

    `position` is |x|: how many tokens stand before the one that is chosen.
    """
    state = _splitmix64(seed & _MASK64)
    state = _splitmix64(state ^ (choice & _MASK64))
    first = _splitmix64(state ^ (position & _MASK64))
    second = _splitmix64(first)
    low = 0xFFFFFFFF
    return first >> 32, (first & low) | 1, second >> 32, (second & low) | 1


def lowbias32(x: U32) -> U32:
    """C. Wellons's 32-bit integer hash `lowbias32` (nullprogram.com/blog/2018/07/31)."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def uniform_bits(keys: tuple[int, int, int, int], token_ids: NDArray[np.int64]) -> tuple[U32, U32]:
    """The high and the low 32-bit word of each token's random number, shape of `token_ids`."""
    words = lowbias32(token_ids.astype(np.uint32))
    high = lowbias32((words ^ np.uint32(keys[0])) * np.uint32(keys[1]))
    low = lowbias32((words ^ np.uint32(keys[2])) * np.uint32(keys[3]))
    return high, low


def gumbel(seed: int, choice: int, position: int, token_ids: NDArray[np.int64]) -> F64:
    """G = -log(-log u) with u a float64 in (0, 1) of 53 random bits, shape of `token_ids`."""
    high, low = uniform_bits(noise_keys(seed, choice, position), token_ids)
    bits = (high.astype(np.uint64) << np.uint64(21)) | (low >> np.uint32(11)).astype(np.uint64)
    # Zero is taken for one: u = 0 would make G minus infinity.
    uniform = np.maximum(bits, np.uint64(1)).astype(np.float64) * 2.0**-53
    return -np.log(-np.log(uniform))
