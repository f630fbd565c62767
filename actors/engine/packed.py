"""Linear layers with weights in oneDNN's blocked layout: the CPU's faster equal of nn.Linear.

The layout is made once at load instead of at every call: about half the time of a step of few
rows, in bf16 bit for bit the result of F.linear, and row-invariant where the plain float32
product is not (docs/decisions.md). On other devices nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class PackedLinear(nn.Module):
    """y = x W^T + b with W packed; the dense weight is not kept."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        # No parameter: packed tensors have no storage that nn.Module could move or list.
        self.packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(
            linear.weight.detach(), None
        )
        self.bias: torch.Tensor | None = None if linear.bias is None else linear.bias.detach()

    @property
    def packed_bytes(self) -> int:
        """Size of the packed weight."""
        return self.packed.numel() * self.packed.element_size()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., in_features), of the weight's dtype."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


def pack_linears(models: Iterable[nn.Module]) -> None:
    """Replace every nn.Linear of the models, once where models share it. CPU only, and of the
    dtypes that this processor's oneDNN packs."""
    if not torch.backends.mkldnn.is_available():
        return
    done: dict[nn.Module, PackedLinear] = {}
    for model in models:
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear) and _packs(child.weight):
                    if child not in done:
                        done[child] = PackedLinear(child)
                    setattr(module, name, done[child])


def _packs(weight: torch.Tensor) -> bool:
    if weight.device.type != "cpu":
        return False
    match weight.dtype:
        case torch.float32:
            return True
        case torch.bfloat16:
            return torch.ops.mkldnn._is_mkldnn_bf16_supported()
        case torch.float16:
            return torch.ops.mkldnn._is_mkldnn_fp16_supported()
        case _:
            return False
