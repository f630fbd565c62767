"""What a draft that reads full's hidden states takes in beside an id's embedding: what full made
of everything before that id (EAGLE's idea, arXiv 2401.15077).

It knows two vectors a row; no cache and no engine.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from actors.engine.route import ModelError


class Reader(nn.Module):
    """e + features(norm(f)), each (..., width). With features of zero, as it begins, it is not
    there: a draft that reads nothing can learn to read."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps)
        self.features = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.features.weight)

    def forward(self, embedded: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """The embeddings of ids, and full's last hidden states at the places before them."""
        return embedded + self.features(self.norm(features))


def load_reader(
    path: Path, width: int, eps: float, dtype: torch.dtype, device: torch.device
) -> Reader:
    """ModelError where the file is not that of a reader of this width."""
    with torch.device("meta"):
        reader = Reader(width, eps)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"reader {path}: {' '.join(str(error).split())}") from error
    wanted = {name: list(tensor.shape) for name, tensor in reader.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        raise ModelError(f"reader {path}: it holds {found}, a reader of this model is {wanted}")
    placed = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
    reader.load_state_dict(placed, assign=True)
    return reader.requires_grad_(False)
