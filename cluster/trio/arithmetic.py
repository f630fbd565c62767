"""The number format that training computes in, by the device."""

from __future__ import annotations

import torch


def fast_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 where the device has it in hardware; elsewhere it is many times slower than
    float32."""
    if torch.device(device).type != "cpu" or torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32
