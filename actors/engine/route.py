"""Route files: what of a model a slim verifier or a draft keeps, and how it is changed.

JSON, checked at the edge; files that it names lie beside it, and layers are numbered as in
the full model.

- `kept_layers`; `no_attention` and `no_mlp`: those of them whose attention or MLP, with its
  norms, is skipped.
- `delta`: safetensors with what is added to parameters of the kept layers, to
  `model.norm.weight` and, where the head is shortened, to the rows left of `lm_head.weight`. Per
  parameter: `NAME` of its shape; or `NAME` as int8 and `NAME.scale` (float32, one per row of
  NAME), whose product is added; or `NAME.lora_a` (rank, in) and `NAME.lora_b` (out, rank),
  whose product is added.
- `shortlist`: safetensors with `ids` (S,), the only ids that the output head is computed for.
- `reads` "full": a draft that reads full's last hidden states in the same worker, through the
  `reader`, safetensors with the tensors of `actors.engine.reader.Reader`.
- `dtype`: its own; `weights` "int8": weight-only int8 of the linear layers and the head, after
  the delta.
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
    """A cut of one model; see the module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["viaserve-route-1"] = "viaserve-route-1"
    model_fingerprint: str
    num_layers: Annotated[int, Field(ge=1)]
    kept_layers: tuple[Annotated[int, Field(ge=0)], ...]
    no_attention: tuple[int, ...] = ()
    no_mlp: tuple[int, ...] = ()
    delta: str | None = None
    shortlist: str | None = None
    reads: Literal["full"] | None = None
    reader: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    weights: Literal["int8"] | None = None
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
        for key, layers in (("no_attention", self.no_attention), ("no_mlp", self.no_mlp)):
            if list(layers) != sorted(set(layers) & set(kept)):
                raise ModelError(
                    f"route {path}: {key} must be ascending, distinct and of kept_layers"
                )
        if (self.reads is None) != (self.reader is None):
            raise ModelError(f"route {path}: reads and reader go together")
        if both := sorted({*self.no_attention} & {*self.no_mlp}):
            raise ModelError(
                f"route {path}: no_attention and no_mlp share layer {both[0]}; a layer with"
                " neither belongs out of kept_layers"
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
