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
from safetensors import SafetensorError
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from actors.engine.attention import ATTENTION_NAME
from actors.engine.delta import Delta
from actors.engine.halves import remove_half
from actors.engine.route import ModelError, Route
from actors.engine.shortlist import ShortHead
from actors.engine.weights import (
    HEAD,
    halves_left_out,
    is_kept,
    layer_of,
    read_tensors,
    renamed,
    tensor_names,
    weight_files,
)

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


def slim_of(
    full: PreTrainedModel,
    route: Route,
    delta_path: Path | None,
    shortlist: torch.Tensor | None = None,
) -> PreTrainedModel:
    """The routed model that shares every tensor with `full`; a delta copies what it changes, a
    shortlist, ids (S,), the rows of the head.

    Layers keep their index of the full model, by which the slim's own cache is keyed.
    """
    names = full.state_dict().keys()
    delta = _read_delta(delta_path, names, route, shortlist)
    slim = _shell(full)
    inner = slim._modules["model"] = _shell(full.model)
    slim.config = inner.config = routed_config(full.config, route)
    layers: list[nn.Module] = []
    for i in route.kept_layers:
        layer = _changed(full.model.layers[i], f"model.layers.{i}.", delta)
        if halves := halves_left_out(route, i):
            layer = _shell(layer)
            for half in halves:
                remove_half(layer, half)
        layers.append(layer)
    inner._modules["layers"] = nn.ModuleList(layers)
    if _NORM in delta.targets:
        inner._modules["norm"] = _changed(full.model.norm, "model.norm.", delta)
    if shortlist is not None:
        head = ShortHead.of(full.lm_head, shortlist)
        head._modules["rows"] = _changed(head.rows, "lm_head.", delta)
        slim._modules["lm_head"] = head
    return slim


def load_sliced(
    model_dir: Path,
    route: Route,
    dtype: torch.dtype,
    device: torch.device,
    delta_path: Path | None = None,
    shortlist: torch.Tensor | None = None,
) -> PreTrainedModel:
    """The routed model alone: its kept layers, embedding, norm and head are read, no more; with
    a shortlist, ids (S,), only those rows of the head."""
    config = routed_config(load_config(model_dir), route)
    if shortlist is not None:
        config.tie_word_embeddings = False
    new_index = {old: new for new, old in enumerate(route.kept_layers)}
    with readable(f"model {model_dir}"):
        names = {n: path for path in weight_files(model_dir) for n in tensor_names(path)}
        delta = _read_delta(delta_path, names, route, shortlist)
        # Cast, then changed: as `slim_of` does it, so that both slims are the same model.
        state = {
            renamed(name, new_index): delta.added_to(tensor.to(dtype), name)
            for name, tensor in read_tensors(names, route, shortlist)
        }
    with readable(f"model {model_dir}"):
        model_class = _cut_class(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], route, shortlist)
        # The auto class insists on a path; the class it would pick takes a state dict alone.
        model, loaded = model_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=dtype,
            attn_implementation=ATTENTION_NAME,
            output_loading_info=True,
            **_LOCAL,
        )
    model = _checked(model, loaded, model_dir, device)
    if shortlist is not None:
        model.lm_head = ShortHead(model.lm_head, shortlist)
    return model


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
_NORM = "model.norm.weight"
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


def _read_delta(
    path: Path | None, names: Collection[str], route: Route, shortlist: torch.Tensor | None
) -> Delta:
    """A route's delta, empty without a path; ModelError where it changes what it may not."""
    if path is None:
        return Delta(Path(), {})
    delta = Delta.read(path)
    for target in sorted(delta.targets):
        if target == HEAD and shortlist is not None:
            continue
        changeable = target == _NORM or layer_of(target) is not None
        if target not in names or not changeable or not is_kept(target, names, route):
            raise ModelError(f"delta {path}: {target} is no parameter of a kept layer")
    return delta


def _cut_class(model_class: Any, route: Route, shortlist: torch.Tensor | None) -> Any:
    """A class of the model's kind whose instances have only what the route keeps, so that
    transformers asks for these tensors and makes no others."""
    if shortlist is None and not route.no_attention and not route.no_mlp:
        return model_class

    def init(self: Any, config: PretrainedConfig) -> None:
        model_class.__init__(self, config)
        for old, layer in zip(route.kept_layers, self.model.layers, strict=True):
            for half in halves_left_out(route, old):
                remove_half(layer, half)
        if shortlist is not None:
            head = self.lm_head
            self.lm_head = nn.Linear(head.in_features, len(shortlist), head.bias is not None)

    # transformers reads the source of a class's module to learn what its attention can do.
    body = {"__init__": init, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), body)


def _changed(module: nn.Module, prefix: str, delta: Delta) -> nn.Module:
    """The module itself, or a copy with the delta added where the delta names it."""
    touched = {t.removeprefix(prefix) for t in delta.targets if t.startswith(prefix)}
    if not touched:
        return module
    memo = {id(p): p for name, p in module.named_parameters() if name not in touched}
    module = copy.deepcopy(module, memo)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in touched:
                host = parameter.detach().cpu()
                parameter.copy_(delta.added_to(host, prefix + name))
    return module
