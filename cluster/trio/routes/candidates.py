"""A candidate as a route, and what it costs: between the pure search and the models it judges."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from actors.engine.loader import readable
from actors.engine.route import Route
from cluster.trio.routes.candidate import Candidate
from policies.masks import Mask, Space


@dataclass(frozen=True, slots=True)
class Candidates:
    """Routes of one model. `attention_share`: of a layer's weights."""

    space: Space
    fingerprint: str
    attention_share: float

    def route(self, candidate: Candidate) -> Route:
        """Without figures."""
        mask = candidate.mask
        halves = {
            "no_attention": self.space.skipped(mask, 0),
            "no_mlp": self.space.skipped(mask, 1),
        }
        fields: dict[str, Any] = {name: layers for name, layers in halves.items() if layers}
        return Route(
            model_fingerprint=self.fingerprint,
            num_layers=self.space.num_layers,
            kept_layers=self.space.kept_layers(mask),
            weights="int8" if candidate.int8 else None,
            **fields,
        )

    def share(self, mask: Mask) -> float:
        """Of the weights of all layers, how much is kept."""
        space = self.space
        kept = len(space.kept_layers(mask))
        attention = (kept - len(space.skipped(mask, 0))) * self.attention_share
        mlp = (kept - len(space.skipped(mask, 1))) * (1 - self.attention_share)
        return (attention + mlp) / space.num_layers


def attention_share(model_dir: Path) -> float:
    """Of the weights of a model's layers, how much is attention's. Raises ModelError."""
    attention = layers = 0
    with readable(f"model {model_dir}"):
        for path in sorted(model_dir.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    if name.startswith("model.layers."):
                        count = prod(file.get_slice(name).get_shape())
                        layers += count
                        attention += count * (".self_attn." in name)
        return attention / layers
