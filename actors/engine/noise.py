"""The shared noise in torch: the same integers as `policies.noise`, on any device.

torch has no unsigned 32-bit arithmetic everywhere, so words live in int32: products wrap
modulo 2**32 as they should, right shifts are masked to be logical.
"""

from __future__ import annotations

import functools
import math

import torch

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


def _word(token_words: torch.Tensor, key: int, multiplier: int) -> torch.Tensor:
    x = token_words ^ _signed(key)
    x *= _signed(multiplier)
    return _lowbias32_(x)


def gumbel(
    seed: int, choice: int, position: int, token_ids: torch.Tensor, vocab_size: int
) -> torch.Tensor:
    """G for the given ids (int64), float64, shape of `token_ids`."""
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
    words = _token_words(vocab_size, device)
    high = _word(words if among is None else words[among], keys[0], keys[1])
    high ^= -(1 << 31)  # unsigned order as signed order
    return torch.nonzero(high >= max(least, 0) - (1 << 31)).flatten()
