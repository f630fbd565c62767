"""Decoder layers of few operations, for a draft: what a Llama or a Qwen3 computes, up to rounding.

q, k and v are one product, and so are gate and up; rotations come from a table. Rows are not
invariant (DESIGN section 2): a draft's need not be. It knows the cache and the attention
function, not where the layers came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from actors.engine.attention import Group, slot_attention
from actors.engine.halves import NoAttention, NoMlp
from actors.engine.kv import SlotCache
from actors.engine.reader import Reader

_KINDS = ("llama", "qwen3")
_ROTATIONS = ("default", "linear", "llama3", "yarn")
"""Those that depend on the position alone, not on how long the text is."""


class LeanAttention(nn.Module):
    """One layer's attention with its norm and residual."""

    def __init__(self, norm: Any, attention: Any) -> None:
        super().__init__()
        self.layer_idx: int = attention.layer_idx
        self.dim: int = attention.head_dim
        self.scaling: float = attention.scaling
        self.heads = attention.q_proj.out_features // self.dim
        self.kv_heads = attention.k_proj.out_features // self.dim
        self.norm = LeanNorm(norm)
        self.qkv = _joined(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out = attention.o_proj
        self.head_norm = nn.Identity()
        if hasattr(attention, "q_norm"):
            norms = [attention.q_norm] * self.heads + [attention.k_norm] * self.kv_heads
            self.head_norm = LeanHeadNorm(norms)

    def forward(
        self, x: torch.Tensor, turns: torch.Tensor, cache: SlotCache, groups: Sequence[Group]
    ) -> torch.Tensor:
        """x: (rows, hidden); turns: (2, rows, 1, dim), see LeanDecoder."""
        rows = len(x)
        heads = self.qkv(self.norm(x)).float().view(rows, -1, self.dim)
        turned, value = heads.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        turned = self.head_norm(turned)
        turned = torch.addcmul(turned * turns[0], turned.roll(self.dim // 2, -1), turns[1])
        query, key = turned.to(cache.dtype).split((self.heads, self.kv_heads), dim=1)
        keys, values = cache.update(
            key.transpose(0, 1)[None], value.to(cache.dtype).transpose(0, 1)[None], self.layer_idx
        )
        if rows == 1:
            found = self._one_row(query, keys, values, cache)
        else:
            packed = query.transpose(0, 1)[None]
            found, _ = slot_attention(self, packed, keys, values, None, self.scaling, groups=groups)
        return x + self.out(found.reshape(rows, -1).to(x.dtype))

    def _one_row(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, cache: SlotCache
    ) -> torch.Tensor:
        """A single row sees all that its slot holds, itself last; no mask, no padding."""
        [(slot, position, _, _)] = cache.spans
        asked = query.view(self.kv_heads, -1, self.dim) * self.scaling
        scores = torch.matmul(asked, keys[slot, :, : position + 1].transpose(1, 2))
        weights = torch.softmax(scores, -1, torch.float32).to(values.dtype)
        return torch.matmul(weights, values[slot, :, : position + 1])


class LeanMlp(nn.Module):
    """One layer's gated MLP with its norm and residual."""

    def __init__(self, norm: Any, mlp: Any) -> None:
        super().__init__()
        self.norm = LeanNorm(norm)
        self.gate_up = _joined(mlp.gate_proj, mlp.up_proj)
        self.down = mlp.down_proj
        self.act = mlp.act_fn

    def forward(self, x: torch.Tensor, *_: Any) -> torch.Tensor:
        """x: (rows, hidden)."""
        gate, up = self.gate_up(self.norm(x)).chunk(2, dim=-1)
        return x + self.down(self.act(gate) * up)


class LeanNorm(nn.Module):
    """x over its root mean square, times the weight, as one operation."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight: torch.Tensor = norm.weight
        self.eps: float = norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., size)."""
        return functional.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class LeanHeadNorm(nn.Module):
    """Each head by a norm of its own, as one operation."""

    def __init__(self, norms: Sequence[Any]) -> None:
        super().__init__()
        self.weight = nn.Buffer(torch.stack([norm.weight.detach() for norm in norms]).float())
        self.eps: float = norms[0].variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, heads, dim) float32."""
        return functional.rms_norm(x, x.shape[-1:], None, self.eps) * self.weight


class LeanDecoder(nn.Module):
    """Embedding, the halves of the layers one after another, last norm."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.embed_tokens = inner.embed_tokens
        self.halves = nn.ModuleList()
        for layer in inner.layers:
            if not isinstance(layer.self_attn, NoAttention):
                self.halves.append(LeanAttention(layer.input_layernorm, layer.self_attn))
            if not isinstance(layer.mlp, NoMlp):
                self.halves.append(LeanMlp(layer.post_attention_layernorm, layer.mlp))
        self.norm = LeanNorm(inner.norm)
        self.rotary_emb = inner.rotary_emb
        self.reader: Reader | None = None
        self._turns = torch.empty(0)

    @property
    def cached_layers(self) -> list[int]:
        """Indices of the layers that have keys and values."""
        return [half.layer_idx for half in self.halves if isinstance(half, LeanAttention)]

    def reserve(self, num_positions: int) -> None:
        """Make the table of rotations, (2, positions, 1, dim) float32: what a head is multiplied
        with, and what it is multiplied with once its two halves have changed places."""
        device = self.embed_tokens.weight.device
        positions = torch.arange(num_positions, device=device)[None]
        cos, sin = self.rotary_emb(torch.empty(0, device=device), positions)
        first, second = sin[0].chunk(2, dim=-1)
        self._turns = torch.stack((cos[0], torch.cat((-first, second), -1)))[:, :, None]

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        cache: SlotCache,
        groups: Sequence[Group],
        features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """ids and positions: (rows,); `groups` may be empty for one row; `features`: what its
        reader reads, (rows, hidden). Gives (rows, hidden)."""
        turns = self._turns[:, positions]
        x = self.embed_tokens(ids)
        if self.reader is not None:
            assert features is not None
            x = self.reader(x, features.to(x.dtype))
        for half in self.halves:
            x = half(x, turns, cache, groups)
        return self.norm(x)


def make_lean(model: PreTrainedModel) -> None:
    """Give the model a LeanDecoder in place, before its linear layers are packed or quantised;
    other kinds than those known here stay as they are. Joined weights are copies."""
    if has_lean(model.config):
        model.model = LeanDecoder(model.model).requires_grad_(False)


def has_lean(config: Any) -> bool:
    """Whether models of this config can be given a LeanDecoder."""
    if config.model_type not in _KINDS or getattr(config, "sliding_window", None) is not None:
        return False
    return (config.rope_parameters or {}).get("rope_type", "default") in _ROTATIONS


def _joined(*linears: nn.Linear) -> nn.Linear:
    """One linear layer that gives the outputs of all, side by side."""
    with torch.device("meta"):
        joined = nn.Linear(linears[0].in_features, sum(x.out_features for x in linears), False)
    joined.weight = nn.Parameter(torch.cat([x.weight.detach() for x in linears]), False)
    biases = [x.bias.detach() for x in linears if x.bias is not None]
    assert len(biases) in (0, len(linears))
    if biases:
        joined.bias = nn.Parameter(torch.cat(biases), False)
    return joined
