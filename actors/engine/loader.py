"""Loads models for the tiers: whole, routed beside the full model, or sliced from disk.

Local files only, safetensors only, no remote code.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from actors.engine.attention import ATTENTION_NAME
from actors.engine.route import ModelError, Route

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_config(model_dir: Path) -> PretrainedConfig:
    """The model's config; ModelError where there is no model or not one of the kind served."""
    if not (model_dir / "config.json").is_file():
        raise ModelError(f"model {model_dir}: no config.json there")
    with readable(f"model {model_dir}"):
        config = AutoConfig.from_pretrained(model_dir, **_LOCAL)
    if not hasattr(config, "num_hidden_layers") or not hasattr(config, "num_key_value_heads"):
        raise ModelError(
            f"model {model_dir}: {config.model_type} is no decoder-only language model"
        )
    return config


def load_full(model_dir: Path, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """A whole model with our attention."""
    load_config(model_dir)
    with readable(f"model {model_dir}"):
        auto: Any = AutoModelForCausalLM
        model, loaded = auto.from_pretrained(
            model_dir,
            dtype=dtype,
            attn_implementation=ATTENTION_NAME,
            use_safetensors=True,
            output_loading_info=True,
            **_LOCAL,
        )
    return _checked(model, loaded, model_dir, device)


def slim_of(full: PreTrainedModel, route: Route, delta_path: Path | None) -> PreTrainedModel:
    """The routed model that shares every tensor with `full`; a delta copies what it changes.

    Layers keep their index of the full model, by which the slim's own cache is keyed.
    """
    slim = _shell(full)
    inner = slim._modules["model"] = _shell(full.model)
    slim.config = inner.config = routed_config(full.config, route)
    layers = [full.model.layers[i] for i in route.kept_layers]
    if delta_path is not None:
        delta = _read_delta(delta_path, full.state_dict(), route)
        with readable(f"delta {delta_path}"):
            layers = [
                _changed(layer, f"model.layers.{i}.", delta)
                for i, layer in zip(route.kept_layers, layers, strict=True)
            ]
    inner._modules["layers"] = nn.ModuleList(layers)
    return slim


def load_sliced(
    model_dir: Path,
    route: Route,
    dtype: torch.dtype,
    device: torch.device,
    delta_path: Path | None = None,
) -> PreTrainedModel:
    """The routed model alone: its kept layers, embedding, norm and head are read, no more."""
    config = routed_config(load_config(model_dir), route)
    new_index = {old: new for new, old in enumerate(route.kept_layers)}
    with readable(f"model {model_dir}"):
        names = {name: path for path in _weight_files(model_dir) for name in _names(path)}
        delta = {} if delta_path is None else _read_delta(delta_path, names, route)
        # Cast, then changed: as `slim_of` does it, so that both slims are the same model.
        state = {
            _renamed(name, new_index): _add_delta(tensor.to(dtype), name, delta)
            for name, tensor in _read_tensors(names, new_index)
        }
    with readable(f"model {model_dir}"):
        # The auto class insists on a path; the class it would pick takes a state dict alone.
        model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        model, loaded = model_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=dtype,
            attn_implementation=ATTENTION_NAME,
            output_loading_info=True,
            **_LOCAL,
        )
    return _checked(model, loaded, model_dir, device)


def routed_config(config: PretrainedConfig, route: Route) -> PretrainedConfig:
    """The config of a model that has only the kept layers."""
    routed = copy.deepcopy(config)
    routed.num_hidden_layers = len(route.kept_layers)
    types = getattr(config, "layer_types", None)
    if types is not None:
        routed.layer_types = [types[i] for i in route.kept_layers]
    return routed


_LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
_REASON_CHARS = 300
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


@contextmanager
def readable(what: str) -> Iterator[None]:
    """The many errors of transformers and its libraries as a ModelError of one line."""
    try:
        yield
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{what}: {reason[:_REASON_CHARS]}") from error


def _checked(
    model: PreTrainedModel, loaded: Mapping[str, Any], model_dir: Path, device: torch.device
) -> PreTrainedModel:
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(
            f"model {model_dir}: {len(missing)} tensors are missing, {missing[0]} among them"
        )
    layers = getattr(getattr(model, "model", None), "layers", None)
    if layers is None or not all(hasattr(layer, "self_attn") for layer in layers):
        raise ModelError(
            f"model {model_dir}: {type(model).__name__} has no `model.layers` of attention"
            " layers; only decoder-only models of that kind are served"
        )
    nn.Module.to(model, device)
    return model.eval().requires_grad_(False)


def _shell(module: Any) -> Any:
    """A shallow copy of a module whose children may be exchanged without touching it."""
    shell = copy.copy(module)
    shell._modules = dict(module._modules)
    return shell


def _weight_files(model_dir: Path) -> list[Path]:
    files = sorted(model_dir.glob("*.safetensors"))
    if not files:
        raise ModelError(f"model {model_dir}: no .safetensors file there")
    return files


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _read_tensors(
    names: Mapping[str, Path], kept: Collection[int]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a route needs, one at a time; `names` says in which file each is."""
    for name, path in names.items():
        if (layer := _layer_of(name)) is None or layer in kept:
            with safe_open(path, framework="pt") as file:
                yield name, file.get_tensor(name)


def _read_delta(path: Path, known: Collection[str], route: Route) -> dict[str, torch.Tensor]:
    """A delta's tensors; ModelError unless each changes a parameter of a kept layer."""
    with readable(f"delta {path}"):
        delta = load_file(path)
    for name in delta:
        target = name.removesuffix(".lora_a").removesuffix(".lora_b")
        if target not in known or _layer_of(target) not in route.kept_layers:
            raise ModelError(f"delta {path}: {target} is no parameter of a kept layer")
        halves = {f"{target}.lora_a", f"{target}.lora_b"}
        if name in halves and not halves <= delta.keys():
            raise ModelError(f"delta {path}: {target} has one half of a product only")
    return delta


def _layer_of(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["model", "layers"] else None


def _renamed(name: str, new_index: Mapping[int, int]) -> str:
    layer = _layer_of(name)
    if layer is None:
        return name
    parts = name.split(".")
    parts[2] = str(new_index[layer])
    return ".".join(parts)


def _add_delta(tensor: torch.Tensor, name: str, delta: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if name in delta:
        change = delta[name].float()
    elif f"{name}.lora_a" in delta:
        change = delta[f"{name}.lora_b"].float() @ delta[f"{name}.lora_a"].float()
    else:
        return tensor
    if change.shape != tensor.shape:
        shapes = f"{list(change.shape)} to {list(tensor.shape)}"
        raise ModelError(f"delta of {name}: cannot add {shapes}")
    return (tensor.float() + change).to(tensor.dtype)


def _changed(layer: nn.Module, prefix: str, delta: Mapping[str, torch.Tensor]) -> nn.Module:
    """The layer itself, or a copy with the delta added where the delta names it."""
    touched = {
        name.removeprefix(prefix).removesuffix(".lora_a").removesuffix(".lora_b")
        for name in delta
        if name.startswith(prefix)
    }
    if not touched:
        return layer
    memo = {id(p): p for name, p in layer.named_parameters() if name not in touched}
    layer = copy.deepcopy(layer, memo)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name in touched:
                host = parameter.detach().cpu()
                parameter.copy_(_add_delta(host, prefix + name, delta))
    return layer
