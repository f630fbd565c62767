"""Route files: which layers of a model a slim verifier keeps.

JSON, checked at the edge: format, model fingerprint, kept layers, and optionally a weights
delta beside the file (safetensors) and a dtype of its own. A delta holds, per parameter of
the full model, either `NAME` (added to the weight) or `NAME.lora_a` (rank, in) and
`NAME.lora_b` (out, rank), whose product is added.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FINGERPRINT_SAMPLES = 64
"""Pages of each weights file that are hashed; whole files of 140 GB would take minutes."""
_PAGE = 4096
_SHAPE_KEYS = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


class ModelError(Exception):
    """A model, route or pairing that cannot be served; the text says why in one line."""


class Route(BaseModel):
    """A layer mask of one model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["viaserve-route-1"] = "viaserve-route-1"
    model_fingerprint: str
    num_layers: Annotated[int, Field(ge=1)]
    kept_layers: tuple[Annotated[int, Field(ge=0)], ...]
    delta: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    figures: Mapping[str, float] = Field(default_factory=dict)

    def check(self, fingerprint: str, num_layers: int, path: Path) -> None:
        """Raise ModelError where the route is not one of this model."""
        kept = self.kept_layers
        if self.model_fingerprint != fingerprint:
            raise ModelError(
                f"route {path}: made for model {self.model_fingerprint}, this one is {fingerprint}"
            )
        if self.num_layers != num_layers:
            raise ModelError(
                f"route {path}: num_layers is {self.num_layers}, the model has {num_layers}"
            )
        if not kept or list(kept) != sorted(set(kept)) or kept[-1] >= num_layers:
            raise ModelError(
                f"route {path}: kept_layers must be ascending, distinct and below {num_layers}"
            )


def read_route(path: Path) -> Route:
    """Parse a route file; ModelError with one line where that fails."""
    try:
        return Route.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"route {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise ModelError(f"route {path}: {where}: {first['msg']}") from error


def fingerprint(model_dir: Path) -> str:
    """A name for a model's weights: hash of shapes, tensor headers and sampled pages.

    16 hex digits. Two models of one architecture with different weights differ; copying a
    folder does not change it. ModelError where the files cannot be read.
    """
    try:
        return _fingerprint(model_dir)
    except (OSError, ValueError, struct.error) as error:
        raise ModelError(f"model {model_dir}: cannot be read: {error}") from error


def _fingerprint(model_dir: Path) -> str:
    digest = hashlib.sha256()
    config = json.loads((model_dir / "config.json").read_text())
    digest.update(json.dumps([config.get(key) for key in _SHAPE_KEYS]).encode())
    for path in sorted(model_dir.glob("*.safetensors")):
        size = path.stat().st_size
        with path.open("rb") as file:
            (header_size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_size))
            header.pop("__metadata__", None)
            digest.update(json.dumps(header, sort_keys=True).encode())
            for i in range(FINGERPRINT_SAMPLES):
                file.seek(8 + header_size + (size - 8 - header_size) * i // FINGERPRINT_SAMPLES)
                digest.update(file.read(_PAGE))
    return digest.hexdigest()[:16]
