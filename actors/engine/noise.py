"""The shared noise in torch: the same integers as `policies.noise`, on any device.

On CPU numpy computes it, in fewer and cheaper operations. torch has no unsigned 32-bit
arithmetic everywhere, so on other devices words live in int32: products wrap modulo 2**32 as
they should, right shifts are masked to be logical.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch

from policies import noise
from policies.noise import noise_keys


def _signed(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word


def _lowbias32_(x: torch.Tensor) -> torch.Tensor:
    """`policies.noise.lowbias32` in place on int32."""
    x ^= (x >> 16) & 0xFFFF
    x *= 0x7FEB352D
    x ^= (x >> 15) & 0x1FFFF
    x *= _signed(0x846CA68B)
    x ^= (x >> 16) & 0xFFFF
    return x


@functools.lru_cache(maxsize=4)
def _token_words(vocab_size: int, device: torch.device) -> torch.Tensor:
    return _lowbias32_(torch.arange(vocab_size, dtype=torch.int32, device=device))


@functools.lru_cache(maxsize=4)
def _numpy_words(vocab_size: int) -> noise.U32:
    return noise.lowbias32(np.arange(vocab_size, dtype=np.uint32))


def _word(token_words: torch.Tensor, key: int, multiplier: int) -> torch.Tensor:
    x = token_words ^ _signed(key)
    x *= _signed(multiplier)
    return _lowbias32_(x)


def gumbel(
    seed: int, choice: int, position: int, token_ids: torch.Tensor, vocab_size: int
) -> torch.Tensor:
    """G for the given ids (int64), float64, shape of `token_ids`."""
    if token_ids.device.type == "cpu":
        return torch.from_numpy(noise.gumbel(seed, choice, position, token_ids.numpy()))
    return device_gumbel(seed, choice, position, token_ids, vocab_size)


def device_gumbel(
    seed: int, choice: int, position: int, token_ids: torch.Tensor, vocab_size: int
) -> torch.Tensor:
    """As `gumbel`, by torch."""
    keys = noise_keys(seed, choice, position)
    words = _token_words(vocab_size, token_ids.device)[token_ids]
    high = _word(words, keys[0], keys[1]).to(torch.int64) & 0xFFFFFFFF
    low = _word(words, keys[2], keys[3]).to(torch.int64) & 0xFFFFFFFF
    bits = ((high << 21) | (low >> 11)).clamp_(min=1)
    uniform = bits.to(torch.float64) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def ids_with_noise_at_least(
    seed: int,
    choice: int,
    position: int,
    vocab_size: int,
    bound: float,
    device: torch.device,
    among: torch.Tensor | None = None,
) -> torch.Tensor:
    """Ids whose G may reach `bound`, ascending: none that does is missing, few others are in.
    With `among`, ids (S,): the places there of such ids.

    One integer hash per id and no logarithm: G >= bound iff u >= exp(-exp(-bound)), and the
    high word alone decides that up to its last unit.
    """
    if bound > 37.0:  # the largest G is -log(-log(1 - 2**-53)) = 36.74
        return torch.empty(0, dtype=torch.int64, device=device)
    least = math.floor(math.exp(-math.exp(-bound)) * 2.0**32) - 2 if bound > -700 else 0
    keys = noise_keys(seed, choice, position)
    if device.type == "cpu":
        known = _numpy_words(vocab_size)
        words = known if among is None else known[among.numpy()]
        high = noise.lowbias32((words ^ np.uint32(keys[0])) * np.uint32(keys[1]))
        return torch.from_numpy(np.flatnonzero(high >= np.uint32(max(least, 0))))
    return _device_ids(keys, vocab_size, max(least, 0), device, among)


def _device_ids(
    keys: tuple[int, int, int, int],
    vocab_size: int,
    least: int,
    device: torch.device,
    among: torch.Tensor | None,
) -> torch.Tensor:
    """Ids whose high word is `least` or more, by torch."""
    words = _token_words(vocab_size, device)
    high = _word(words if among is None else words[among], keys[0], keys[1])
    high ^= -(1 << 31)  # unsigned order as signed order
    return torch.nonzero(high >= least - (1 << 31)).flatten()
