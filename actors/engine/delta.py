"""Deltas: what a route adds to parameters of its model; `actors.engine.route` has the format.

It knows tensors and their names, not which of them a route may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from actors.engine.route import ModelError

_PRODUCT = (".lora_a", ".lora_b")
_SCALE = ".scale"
_FORMS = ({""}, {"", _SCALE}, {*_PRODUCT})


class Delta:
    """The tensors of a delta file, by the parameters that they change."""

    def __init__(self, path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        """ModelError where a parameter's tensors are not one of the forms, whole."""
        self.path = path
        self._tensors = tensors
        self.targets = frozenset(map(_target, tensors))
        for target in self.targets:
            self._check(target)

    @classmethod
    def read(cls, path: Path) -> Delta:
        """ModelError where the file cannot be read."""
        try:
            return cls(path, load_file(path))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"delta {path}: {' '.join(str(error).split())}") from error

    def added_to(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """The parameter with what the delta says of it added in float32; of the same dtype.
        ModelError where the shapes do not fit."""
        if name not in self.targets:
            return tensor
        change = self._change(name)
        if change.shape != tensor.shape:
            shapes = f"{list(change.shape)} to {list(tensor.shape)}"
            raise ModelError(f"delta {self.path}: {name}: cannot add {shapes}")
        return (tensor.float() + change).to(tensor.dtype)

    def _change(self, name: str) -> torch.Tensor:
        if name in self._tensors:
            change = self._tensors[name].float()
            scale = self._tensors.get(name + _SCALE)
            return change if scale is None else change * scale.view(-1, *[1] * (change.dim() - 1))
        down, up = (self._tensors[name + half].float() for half in _PRODUCT)
        if down.dim() != 2 or up.dim() != 2 or up.shape[1] != down.shape[0]:
            shapes = f"{list(up.shape)} and {list(down.shape)}"
            raise ModelError(f"delta {self.path}: {name}: cannot be multiplied, {shapes}")
        return up @ down

    def _check(self, target: str) -> None:
        where = f"delta {self.path}: {target}"
        held = {n.removeprefix(target) for n in self._tensors if _target(n) == target}
        if len(held & {*_PRODUCT}) == 1:
            raise ModelError(f"{where} has one half of a product only")
        if held not in _FORMS:
            listed = ", ".join(sorted(f"NAME{suffix}" for suffix in held))
            raise ModelError(f"{where} is given as {listed}, which is no form of a delta")
        for suffix in held:
            dtype = self._tensors[target + suffix].dtype
            is_int8 = suffix == "" and _SCALE in held
            if dtype != torch.int8 if is_int8 else not dtype.is_floating_point:
                raise ModelError(f"{where}{suffix} is of {dtype}")
        if _SCALE in held:
            shape, rows = self._tensors[target + _SCALE].shape, self._tensors[target].shape[:1]
            if shape != rows:
                raise ModelError(
                    f"{where}{_SCALE} is {list(shape)}: one number per row is {list(rows)}"
                )


def _target(name: str) -> str:
    for suffix in (*_PRODUCT, _SCALE):
        name = name.removesuffix(suffix)
    return name
