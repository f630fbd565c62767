"""One packed pass of a model over its key/value slots: what every rank of a group runs.

It knows a model object and slots by number; not whose they are, nor what is asked of logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from actors.engine.attention import (
    ROW_MULTIPLE,
    Group,
    Span,
    build_group,
    plan_groups,
    round_up,
)
from actors.engine.features import FeatureTable
from actors.engine.halves import NoAttention
from actors.engine.kv import SlotCache
from actors.engine.lean import LeanDecoder

_SLOT_MULTIPLE = 128


@dataclass(frozen=True, slots=True)
class Pack:
    """The new rows of one pass: their ids, which session's slot each span of them belongs to
    (in order, without gaps), and the rows `keep` that logits are wanted of. `inputs`: what a
    draft reads beside the ids, (rows, hidden)."""

    ids: Sequence[int]
    spans: Sequence[Span]
    keep: Sequence[int]
    inputs: torch.Tensor | None = None


class Forward(Protocol):
    """Computes packs; keys and values stay in its slots."""

    @property
    def slot_tokens(self) -> int:
        """Tokens that a slot has room for."""
        ...

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values that a token takes, in this process."""
        ...

    @property
    def features(self) -> FeatureTable | None:
        """Last hidden states, where they are kept."""
        ...

    def __call__(self, pack: Pack) -> torch.Tensor:
        """Logits of the kept rows, (len(pack.keep), columns)."""
        ...


class PackedForward:
    """The pass itself, with the model's slots."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        num_slots: int,
        slot_tokens: int,
        row_invariant: bool = True,
        keep_features: bool = False,
    ) -> None:
        """`slot_tokens`: longest session; `row_invariant`: rows are padded to keep the law
        (DESIGN section 2), which a LeanDecoder does not keep; `keep_features`: last hidden
        states are kept."""
        self._model = model.eval()
        self._device = model.device
        self._window = _sliding_window(model)
        self._slot_tokens = round_up(slot_tokens, _SLOT_MULTIPLE)
        self._lean = model.model if isinstance(model.model, LeanDecoder) else None
        assert self._lean is None or not row_invariant
        if self._lean is not None:
            self._lean.reserve(self._slot_tokens)
        self._row_multiple = ROW_MULTIPLE if row_invariant else 1
        self._cache = SlotCache(
            _cached_layers(model), num_slots, self._slot_tokens, model.dtype, self._device
        )
        self._features: FeatureTable | None = None
        if keep_features:
            shape = num_slots, self._slot_tokens, model.config.hidden_size
            self._features = FeatureTable(*shape, model.dtype, self._device)

    @property
    def slot_tokens(self) -> int:
        """See Forward."""
        return self._slot_tokens

    @property
    def bytes_per_token(self) -> int:
        """See Forward."""
        return self._cache.bytes_per_token

    @property
    def features(self) -> FeatureTable | None:
        """See Forward."""
        return self._features

    def __call__(self, pack: Pack) -> torch.Tensor:
        """See Forward. Rows are padded to the row multiple, in the pack and for the head;
        padding rows are written nowhere."""
        self._cache.place([(s.slot, s.position, s.row, s.count) for s in pack.spans])
        positions = [at for s in pack.spans for at in range(s.position, s.position + s.count)]
        padding = [0] * self._lacking(len(pack.ids))
        keep = list(pack.keep)
        keep += keep[-1:] * self._lacking(len(keep))
        logits = self._decoded([*pack.ids, *padding], positions + padding, keep, pack)
        return logits[: len(pack.keep)]

    def _decoded(
        self, ids: list[int], positions: list[int], keep: list[int], pack: Pack
    ) -> torch.Tensor:
        """Logits, (len(keep), columns), of the rows to keep."""
        device, spans = self._device, pack.spans
        where = torch.tensor((ids, positions), device=device)
        kept = torch.tensor(keep, dtype=torch.int64, device=device)
        if self._lean is not None:
            groups = [] if len(ids) == 1 else self._groups(spans)
            hidden = self._lean(where[0], where[1], self._cache, groups, pack.inputs)
            self._keep(spans, hidden)
            return self._model.lm_head(hidden if len(keep) == len(ids) else hidden[kept])
        asked = {
            "input_ids": where[:1],
            "position_ids": where[1:],
            "past_key_values": self._cache,
            "use_cache": True,
            "groups": self._groups(spans),
        }
        if self._features is None:
            return self._model(**asked, logits_to_keep=kept).logits[0]
        hidden = self._model.model(**asked).last_hidden_state[0]
        self._keep(spans, hidden)
        return self._model.lm_head(hidden[kept])

    def _keep(self, spans: Sequence[Span], hidden: torch.Tensor) -> None:
        if self._features is not None:
            self._features.write(spans, hidden)

    def _groups(self, spans: Sequence[Span]) -> list[Group]:
        multiple = self._row_multiple
        tokens, window, device = self._slot_tokens, self._window, self._device
        return [
            build_group(group, tokens, window, device, multiple)
            for group in plan_groups(spans, row_multiple=multiple)
        ]

    def _lacking(self, num_rows: int) -> int:
        return -num_rows % self._row_multiple


def _sliding_window(model: PreTrainedModel) -> int | None:
    window = getattr(model.config, "sliding_window", None)
    return window if isinstance(window, int) else None


def _cached_layers(model: PreTrainedModel) -> list[tuple[int, int, int]]:
    """(layer index, key/value heads, head dim) of each layer; a rank's heads are its own."""
    config: Any = model.config
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if isinstance(model.model, LeanDecoder):
        return [(index, config.num_key_value_heads, dim) for index in model.model.cached_layers]
    found: list[tuple[int, int, int]] = []
    for layer in model.model.layers:
        attention: Any = layer.self_attn
        if not isinstance(attention, NoAttention):
            keys = getattr(attention, "k_proj", None)
            heads = config.num_key_value_heads if keys is None else keys.out_features // dim
            found.append((attention.layer_idx, heads, dim))
    return found
