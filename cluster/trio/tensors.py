"""Tensor files of the trio's jobs: there whole or not at all, and to be read by whoever may read
the route file beside them. It knows no model and no text."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from actors.engine.route import ModelError


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write them as safetensors. ModelError where there is no room for them."""
    with written_whole(path) as part:
        part.touch()
        mode = part.stat().st_mode
        save_file(dict(tensors), part)
        part.chmod(mode)  # safetensors makes files for their owner alone, whatever the umask


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file to write that gets the name `path` at the end of the block. ModelError, and no file,
    where it cannot be written; the libraries' own errors say too little then."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(path.parent).free
        part.unlink(missing_ok=True)
        raise ModelError(
            f"{path}: cannot be written, {free / 1e6:,.0f} MB are free there: {error}"
        ) from error
