"""Tensor files of the trio's jobs: there whole or not at all, and to be read by whoever may read
the route file beside them. It knows no model and no text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write them as safetensors."""
    part = path.with_name(f".{path.name}.part")
    part.touch()
    mode = part.stat().st_mode
    save_file(dict(tensors), part)
    part.chmod(mode)  # safetensors makes files for their owner alone, whatever the umask
    os.replace(part, path)
