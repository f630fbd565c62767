"""Students: routed models whose weights learn, and what they learned as a delta file.

It knows models, routes and peft; no text and no training loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from actors.engine.loader import load_sliced
from actors.engine.reader import Reader
from actors.engine.route import Route
from cluster.trio.learn.train import Student
from cluster.trio.teacher import Head
from cluster.trio.text.lockstep import Chats

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_LAYERS = "model.layers."
_READER = "reader."


def load_student(
    model_dir: Path, route: Route, device: str, delta: Path | None = None
) -> PreTrainedModel:
    """The routed model in float32 with an attention that has a gradient; nothing learns yet."""
    model = load_sliced(model_dir, route, torch.float32, torch.device(device), delta)
    model.set_attn_implementation("sdpa")
    return model


def whole(model: PreTrainedModel, head: Head) -> Student:
    """Every weight of the kept layers and the last norm learn; `head` is given."""
    trained = {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.startswith(_LAYERS) or name == "model.norm.weight"
    }
    for parameter in trained.values():
        parameter.requires_grad_()
    return Student(_hidden_of(model), head, trained)


def reading(student: Student, model: PreTrainedModel, reader: Reader) -> Student:
    """The student with a reader in front that learns, too. `model`: the student's own."""
    embed: Any = model.get_input_embeddings()

    def hidden(chats: Chats, own: torch.Tensor | None = None) -> torch.Tensor:
        read = chats.hidden.float()
        if own is not None:
            read = torch.where(_left_to_itself(chats)[..., None], own.float(), read)
        before = nn.functional.pad(read, (0, 0, 1, 0))[:, :-1]
        x = reader(embed(chats.ids.long()), before)
        return model.model(inputs_embeds=x, use_cache=False).last_hidden_state

    parameters = {f"{_READER}{name}": p for name, p in reader.named_parameters()}
    return Student(hidden, student.head, {**student.trained, **parameters}, again=hidden)


def _left_to_itself(chats: Chats) -> torch.Tensor:
    """Where the student reads its own states, (chats, tokens): at half of the places, drawn by
    the text itself, so that a job that goes on sees what one that was not ended sees."""
    draw = torch.Generator().manual_seed(int(chats.ids.sum()))
    return (torch.rand(chats.ids.shape, generator=draw) < 0.5).to(chats.ids.device)


def reader_tensors(student: Student) -> dict[str, torch.Tensor]:
    """What the reader has learned, bf16."""
    return {
        name.removeprefix(_READER): p.detach().to(torch.bfloat16).contiguous()
        for name, p in student.trained.items()
        if name.startswith(_READER)
    }


def low_rank(model: PreTrainedModel, head: Head, rank: int, seed: int) -> Student:
    """Two thin matrices beside every projection learn (LoRA, arXiv 2106.09685); `seed` is that
    of their first values."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=PROJECTIONS, lora_dropout=0.0, bias="none"
    )
    adapted = get_peft_model(model, config)
    trained = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    return Student(_hidden_of(adapted.base_model.model), head, trained)


def _hidden_of(model: Any) -> Any:
    def hidden(chats: Chats) -> torch.Tensor:
        return model.model(input_ids=chats.ids.long(), use_cache=False).last_hidden_state

    return hidden


def low_rank_delta(student: Student, route: Route) -> dict[str, torch.Tensor]:
    """The products that healing found, under the full model's names, bf16."""
    delta = {}
    for name, parameter in student.trained.items():
        # base_model.model.model.layers.3.self_attn.q_proj.lora_A.default.weight
        layer, module, projection, half, *_ = name.split(f".{_LAYERS}", 1)[1].split(".")
        own = f"{_LAYERS}{layer}.{module}.{projection}.weight"
        target = f"{_name_in_full(own, route)}.{half.lower()}"
        delta[target] = parameter.detach().to(torch.bfloat16).contiguous()
    return delta


def whole_delta(
    student: Student, before: dict[str, torch.Tensor], route: Route
) -> dict[str, torch.Tensor]:
    """What training added to each weight, under the full model's names: int8 with a scale a row
    for matrices, float32 for vectors. `before`: the weights as they were loaded."""
    delta = {}
    for own, parameter in student.trained.items():
        if own.startswith(_READER):
            continue
        change = parameter.detach() - before[own]
        name = _name_in_full(own, route)
        if change.dim() < 2:
            delta[name] = change.contiguous()
            continue
        scale = change.abs().amax(dim=1).clamp(min=1e-12) / 127
        delta[name] = (change / scale[:, None]).round().to(torch.int8)
        delta[f"{name}.scale"] = scale
    return delta


def _name_in_full(own: str, route: Route) -> str:
    if not own.startswith(_LAYERS):
        return own
    layer, rest = own.removeprefix(_LAYERS).split(".", 1)
    return f"{_LAYERS}{route.kept_layers[int(layer)]}.{rest}"
