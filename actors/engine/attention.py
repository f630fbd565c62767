"""Attention of packed rows over key/value slots, registered with transformers.

Row invariance (DESIGN section 2): a row's result is bitwise the same whatever shares its
step. Query rows go through the products in multiples of ROW_MULTIPLE per key/value head, keys
in multiples of KEY_MULTIPLE, masked ones with weight exactly 0, and values are summed in chunks
of KEY_MULTIPLE; each shape on that grid runs the same reductions in the same order.
`actors.engine.invariance` checks it on the machine.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

ATTENTION_NAME = "viaserve_slots"
ROW_MULTIPLE = 4
KEY_MULTIPLE = 128
_GROUP_WASTE = 1.6
"""Sessions share one product while it computes at most this many times what they need."""


@dataclass(frozen=True, slots=True)
class Span:
    """One session's new rows in a step: rows [row, row + count) of the pack, which stand at
    positions [position, position + count) of its slot."""

    slot: int
    position: int
    row: int
    count: int


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring slots [first, end) judged in one product over `num_keys` keys.

    `take`: (slots, rows) packed row of each padded place. `place` / `row`: padded places
    (flat) that are real and the packed rows they answer. `bias`: (slots, 1, 1, rows, keys)
    float32, 0 or -inf; `windowed` the same under the sliding window.
    """

    first: int
    end: int
    num_keys: int
    take: torch.Tensor
    place: torch.Tensor
    row: torch.Tensor
    bias: torch.Tensor
    windowed: torch.Tensor


def round_up(value: int, multiple: int) -> int:
    """The least multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def plan_groups(
    spans: Sequence[Span], waste: float = _GROUP_WASTE, row_multiple: int = ROW_MULTIPLE
) -> list[list[Span]]:
    """Which sessions share a product: neighbouring slots of like size, one span a slot."""

    def rows(span: Span) -> int:
        return round_up(span.count, row_multiple)

    groups: list[list[Span]] = []
    for span in sorted(spans, key=lambda s: s.slot):
        if groups and groups[-1][-1].slot + 1 == span.slot:
            joined = [*groups[-1], span]
            padded = len(joined) * max(map(rows, joined)) * max(map(_keys, joined))
            if padded <= waste * sum(rows(s) * _keys(s) for s in joined):
                groups[-1] = joined
                continue
        groups.append([span])
    return groups


def _keys(span: Span) -> int:
    return round_up(span.position + span.count, KEY_MULTIPLE)


def build_group(
    spans: Sequence[Span],
    slot_tokens: int,
    window: int | None,
    device: torch.device,
    row_multiple: int = ROW_MULTIPLE,
) -> Group:
    """Index tensors and masks of one group; made once a step, used by every layer."""
    rows = round_up(max(span.count for span in spans), row_multiple)
    keys = min(max(map(_keys, spans)), slot_tokens)
    take = torch.zeros((len(spans), rows), dtype=torch.int64)
    last = torch.zeros((len(spans), rows), dtype=torch.int64)
    place: list[int] = []
    row: list[int] = []
    for i, span in enumerate(spans):
        take[i, : span.count] = torch.arange(span.row, span.row + span.count)
        last[i, : span.count] = torch.arange(span.position, span.position + span.count)
        place.extend(range(i * rows, i * rows + span.count))
        row.extend(range(span.row, span.row + span.count))
    key = torch.arange(keys)
    seen = key <= last[..., None]
    near = seen if window is None else seen & (key > last[..., None] - window)
    bias = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))[:, None, None]
    windowed = (
        bias
        if window is None
        else torch.zeros(near.shape).masked_fill_(~near, float("-inf"))[:, None, None]
    )
    return Group(
        first=spans[0].slot,
        end=spans[-1].slot + 1,
        num_keys=keys,
        take=take.to(device),
        place=torch.tensor(place, device=device),
        row=torch.tensor(row, device=device),
        bias=bias.to(device),
        windowed=windowed.to(device),
    )


def slot_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    *,
    groups: Sequence[Group],
    softcap: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention seam. query: (1, heads, rows, dim), packed; key and value: all
    slots, (slots, kv_heads, slot_tokens, dim). Returns (1, rows, heads, dim).
    """
    _, heads, num_rows, dim = query.shape
    kv_heads = key.shape[1]
    packed = query[0].transpose(0, 1)
    out = torch.zeros((num_rows, heads, dim), dtype=query.dtype, device=query.device)
    for group in groups:
        slots, rows = group.take.shape
        shape = (slots, kv_heads, heads // kv_heads, rows)
        asked = packed[group.take].to(key.dtype) * scaling
        asked = asked.view(slots, rows, kv_heads, -1, dim).permute(0, 2, 3, 1, 4)
        keys = key[group.first : group.end, :, : group.num_keys]
        values = value[group.first : group.end, :, : group.num_keys]
        scores = torch.matmul(asked.reshape(slots, kv_heads, -1, dim), keys.transpose(-1, -2))
        if softcap is not None:
            scores = torch.tanh(scores.float() / softcap) * softcap
        bias = group.bias if sliding_window is None else group.windowed
        weights = torch.softmax(scores.view(*shape, -1).float() + bias, dim=-1).to(values.dtype)
        result = _weigh(weights.view(slots, kv_heads, -1, group.num_keys), values)
        flat = result.view(*shape, dim).permute(0, 3, 1, 2, 4).reshape(-1, heads, dim)
        out[group.row] = flat[group.place].to(out.dtype)
    return out[None], None


def _weigh(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """weights @ values, summed over fixed chunks of keys in order: a product over all keys
    would split a longer row elsewhere and add the same numbers up differently."""
    parts = zip(
        weights.split(KEY_MULTIPLE, dim=-1), values.split(KEY_MULTIPLE, dim=-2), strict=True
    )
    products = (torch.matmul(weight, value).float() for weight, value in parts)
    return functools.reduce(torch.Tensor.add_, products)


AttentionInterface.register(ATTENTION_NAME, slot_attention)
