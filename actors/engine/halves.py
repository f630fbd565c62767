"""Half layers: a decoder layer without its attention or without its MLP.

Which norms belong to which half depends on the architecture, and is known by the names of a
layer's parts; layers with other parts are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from actors.engine.route import ModelError

_HALVES: tuple[Mapping[str, frozenset[str]], ...] = (
    {  # Llama, Qwen3
        "self_attn": frozenset({"self_attn", "input_layernorm"}),
        "mlp": frozenset({"mlp", "post_attention_layernorm"}),
    },
    {  # Gemma2
        "self_attn": frozenset({"self_attn", "input_layernorm", "post_attention_layernorm"}),
        "mlp": frozenset({"mlp", "pre_feedforward_layernorm", "post_feedforward_layernorm"}),
    },
)


class NoAttention(nn.Module):
    """Adds nothing to the residual stream and caches nothing."""

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, None]:
        """hidden_states: (1, rows, hidden)."""
        return torch.zeros_like(hidden_states), None


class NoMlp(nn.Module):
    """Adds nothing to the residual stream."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """hidden_states: (1, rows, hidden)."""
        return torch.zeros_like(hidden_states)


def parts_of(half: str, parts: Collection[str]) -> frozenset[str]:
    """The parts of a layer that make up its half "self_attn" or "mlp"; ModelError where the
    layer's parts are not those of a known architecture."""
    for halves in _HALVES:
        if frozenset().union(*halves.values()) == frozenset(parts):
            return halves[half]
    listed = ", ".join(sorted(parts))
    raise ModelError(f"layers of {listed} cannot be halved: no_attention and no_mlp must be empty")


def remove_half(layer: nn.Module, half: str) -> None:
    """Take the half out of the layer, in place."""
    for part in parts_of(half, layer._modules):
        layer._modules[part] = nn.Identity()
    layer._modules[half] = NoAttention() if half == "self_attn" else NoMlp()
