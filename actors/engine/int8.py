"""Weight-only int8: linear layers whose weights are int8 with one scale per output channel.

Symmetric; half the bytes of bf16 to read and to hold. On CPU through torch's own product, on
other devices through torchao. It knows no route and no file.
"""

from __future__ import annotations

import copy
import importlib

import torch
from torch import nn
from transformers import PreTrainedModel

from actors.engine.route import ModelError

_LARGEST = 127
_IN_MULTIPLE = 32
"""The product reads past the end of rows that are no multiple of a vector (torch 2.13: wrong
numbers or a crash), so such rows are padded with zeros."""


class Int8Linear(nn.Module):
    """y = x (q * scale)^T + b on CPU; the dense weight is not kept.

    `weight`: int8, (out, in padded to _IN_MULTIPLE); `scales`: bf16, (out,). Rows go through the
    product as bf16 whatever the model's dtype: with others it is many times slower.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        dense = linear.weight.detach().float()
        scales = (dense.abs().amax(dim=1) / _LARGEST).bfloat16()
        # Divided by the scale as it is kept; a row of zeros has scale 0.
        steps = dense / scales.float().where(scales > 0, 1.0)[:, None]
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        weight = steps.round_().clamp_(-_LARGEST, _LARGEST).to(torch.int8)
        self._lacking = -linear.in_features % _IN_MULTIPLE
        self.weight = nn.Buffer(nn.functional.pad(weight, (0, self._lacking)))
        self.scales = nn.Buffer(scales)
        self.bias = None if linear.bias is None else nn.Buffer(linear.bias.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., in_features)."""
        rows = x.reshape(-1, self.in_features).bfloat16()
        if self._lacking:
            rows = nn.functional.pad(rows, (0, self._lacking))
        y = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scales).to(x.dtype)
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], self.out_features)


def int8_twin(model: PreTrainedModel) -> PreTrainedModel:
    """The model with int8 linears beside its dense one; all other tensors are shared. ModelError
    as `quantise_linears`."""
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in model.parameters()})
    quantise_linears(twin)
    return twin


def quantise_linears(model: PreTrainedModel) -> None:
    """Make every nn.Linear of the model int8, in place; an embedding tied to the head stays
    dense. ModelError where that takes torchao and it is not installed."""
    if model.device.type != "cpu":
        quantise_by_torchao(model)
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))


def quantise_by_torchao(model: PreTrainedModel) -> None:
    """As `quantise_linears`, through torchao's tensors."""
    try:
        # Not at the top: it is optional, and noisy when it is imported.
        torchao = importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise ModelError(
            f'weights "int8" on {model.device.type}: torchao cannot be imported; install the'
            " extra int8 (pip install '.[int8]')"
        ) from error
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
