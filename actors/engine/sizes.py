"""How much memory models take. It knows modules and tensors, dense, packed and quantised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from actors.engine.packed import PackedLinear


def weight_bytes(models: Iterable[nn.Module]) -> int:
    """Bytes of all distinct parameters, buffers and packed weights; shared ones count once."""
    dense: dict[int, int] = {}
    packed: dict[int, int] = {}
    for model in models:
        for tensor in (*model.parameters(), *model.buffers()):
            for plain in _plain(tensor):
                storage = plain.untyped_storage()
                dense[storage.data_ptr()] = storage.nbytes()
        for module in model.modules():
            if isinstance(module, PackedLinear):
                packed[id(module)] = module.packed_bytes
    return sum(dense.values()) + sum(packed.values())


def _plain(tensor: Any) -> Iterator[torch.Tensor]:
    """The tensors that a quantised one is made of; any other is its own."""
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _plain(getattr(tensor, name))
