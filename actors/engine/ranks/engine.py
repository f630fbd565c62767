"""The full tier over ranks: an engine on rank 0, and the loop that every other rank runs."""

from __future__ import annotations

from pathlib import Path
from typing import Never

import torch
from torch import nn
from transformers import PreTrainedModel

from actors.engine.build import EngineSpec, grammars_of
from actors.engine.forward import Pack, PackedForward
from actors.engine.loader import DTYPES, load_full
from actors.engine.packed import pack_linears
from actors.engine.ranks.autotp import join_model, split_model
from actors.engine.ranks.group import RankGroup, or_leave
from actors.engine.ranks.packs import pack_of_bytes, pack_to_bytes
from actors.engine.transformers_engine import TransformersEngine
from actors.heap import freeze_heap
from policies.vocabulary import Tier


class LeadingForward(PackedForward):
    """A pass of all ranks together, seen from rank 0."""

    def __init__(
        self, group: RankGroup, model: PreTrainedModel, num_slots: int, slot_tokens: int
    ) -> None:
        super().__init__(model, num_slots=num_slots, slot_tokens=slot_tokens)
        assert group.hub is not None
        self._hub = group.hub

    def __call__(self, pack: Pack) -> torch.Tensor:
        """See Forward."""
        with or_leave():
            self._hub.send(pack_to_bytes(pack))
            return super().__call__(pack)


def lead(spec: EngineSpec, group: RankGroup) -> TransformersEngine:
    """Rank 0's engine: sessions, slots and choices are its own, the passes are everybody's."""
    assert set(spec.tiers) == {Tier.FULL}
    model = load_part(spec, group)
    forward = LeadingForward(group, model, spec.num_slots, spec.room_tokens)
    return TransformersEngine(
        model,
        num_slots=spec.num_slots,
        slot_tokens=forward.slot_tokens,
        token_budget=spec.token_budget,
        vocab_size=spec.vocab_size or None,
        grammars=grammars_of(spec),
        forward=forward,
    )


def follow(spec: EngineSpec, group: RankGroup) -> Never:
    """Load, then do rank 0's passes until it is gone; ends with this process."""
    assert group.spoke is not None
    model = load_part(spec, group)
    forward = PackedForward(model, num_slots=spec.num_slots, slot_tokens=spec.room_tokens)
    freeze_heap()  # a pause of one rank is a pause of all
    with or_leave(), torch.inference_mode():
        while True:
            forward(pack_of_bytes(group.spoke.take()))


def load_part(spec: EngineSpec, group: RankGroup) -> PreTrainedModel:
    """This rank's part of the full model, ready to run with the others."""
    source = spec.tiers[Tier.FULL]
    assert source.model_dir is not None
    model = load_full(Path(source.model_dir), DTYPES[spec.dtype], torch.device("cpu"))
    split_model(model, group.size, group.device)
    join_model(model, group.exchange)
    nn.Module.to(model, group.device)
    pack_linears([model])
    return model
