"""Which of a model's tensors a route keeps, and their way from safetensors files.

It knows names and files; no model object.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from actors.engine.halves import parts_of
from actors.engine.route import ModelError, Route

HEAD = "lm_head.weight"
_HEAD_BIAS, _EMBEDDING = "lm_head.bias", "model.embed_tokens.weight"
_ROWS_READ = 4096


def weight_files(model_dir: Path) -> list[Path]:
    """The model's safetensors files; ModelError where there is none."""
    files = sorted(model_dir.glob("*.safetensors"))
    if not files:
        raise ModelError(f"model {model_dir}: no .safetensors file there")
    return files


def tensor_names(path: Path) -> list[str]:
    """What one file holds."""
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def read_tensors(
    names: Mapping[str, Path], route: Route, shortlist: torch.Tensor | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a route needs, one at a time; `names` says in which file each is. With a
    shortlist, ids (S,), the head is these rows alone, of the embedding where they are tied."""
    for name, path in names.items():
        if not is_kept(name, names, route):
            continue
        with safe_open(path, framework="pt") as file:
            if shortlist is not None and name in (HEAD, _HEAD_BIAS):
                yield name, _rows(file.get_slice(name), shortlist)
                continue
            tensor = file.get_tensor(name)
        yield name, tensor
        if shortlist is not None and name == _EMBEDDING and HEAD not in names:
            yield HEAD, tensor[shortlist]


def _rows(stored: Any, ids: torch.Tensor) -> torch.Tensor:
    """Some rows, ascending, of a tensor on disk, without the whole of it in memory."""
    parts: list[torch.Tensor] = []
    for begin in range(0, stored.get_shape()[0], _ROWS_READ):
        here = ids[(ids >= begin) & (ids < begin + _ROWS_READ)] - begin
        if len(here):
            parts.append(stored[begin : begin + _ROWS_READ][here])
    return torch.cat(parts)


def is_kept(name: str, names: Collection[str], route: Route) -> bool:
    """Whether a route keeps the tensor of this name, one of the model's `names`."""
    layer = layer_of(name)
    if layer is None:
        return True
    if layer not in route.kept_layers:
        return False
    halves = halves_left_out(route, layer)
    if not halves:
        return True
    parts = {n.split(".")[3] for n in names if layer_of(n) == layer}
    return all(name.split(".")[3] not in parts_of(half, parts) for half in halves)


def halves_left_out(route: Route, layer: int) -> list[str]:
    """Of one layer, as `actors.engine.halves` names them."""
    without = {"self_attn": route.no_attention, "mlp": route.no_mlp}
    return [half for half, layers in without.items() if layer in layers]


def layer_of(name: str) -> int | None:
    """The layer that a tensor of this name belongs to."""
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["model", "layers"] else None


def renamed(name: str, new_index: Mapping[int, int]) -> str:
    """The tensor's name in a model that has only the layers of `new_index`."""
    layer = layer_of(name)
    if layer is None:
        return name
    parts = name.split(".")
    parts[2] = str(new_index[layer])
    return ".".join(parts)
