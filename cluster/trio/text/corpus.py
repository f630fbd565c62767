"""Self-written text on disk: shards of chats with the teacher's last hidden states.

A folder holds `recipe.json` and `shard-NNNN.safetensors`. A shard appears whole or not at all,
so a job that was killed goes on with the first that is missing. It knows files; no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from actors.engine.route import ModelError
from cluster.trio.begun import content_of, other_settings
from cluster.trio.tensors import write_tensors
from cluster.trio.text.lockstep import Chats

RECIPE = "recipe.json"


class Corpus:
    """The shards of one folder, all written by one recipe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def claim(self, recipe: Mapping[str, Any]) -> None:
        """Make the folder this recipe's; ModelError where another one has begun it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / RECIPE
        ours = json.loads(json.dumps(recipe))
        if not path.exists():
            path.write_text(json.dumps(ours, indent=2) + "\n")
        theirs = json.loads(path.read_text())
        if (differs := other_settings(theirs, ours)) is not None:
            raise ModelError(
                f"corpus {self.folder}: {differs}; give another folder or the same settings"
            )

    def check(self, fingerprint: str) -> None:
        """ModelError unless the folder holds text of this model."""
        try:
            recipe = json.loads((self.folder / RECIPE).read_text())
        except (OSError, ValueError):
            raise ModelError(f"corpus {self.folder}: no {RECIPE} there; make it first") from None
        if recipe.get("model") != fingerprint:
            raise ModelError(
                f"corpus {self.folder}: written by model {recipe.get('model')}, this one is"
                f" {fingerprint}"
            )
        if not self.shards():
            raise ModelError(f"corpus {self.folder}: holds no shard yet")

    def path(self, index: int) -> Path:
        """Where a shard is or will be."""
        return self.folder / f"shard-{index:04d}.safetensors"

    def digest(self) -> str:
        """A name for the recipe: text by another one has another name."""
        return content_of(self.folder / RECIPE)

    def shards(self) -> list[int]:
        """The numbers of the shards that are there."""
        return sorted(int(path.stem[6:]) for path in self.folder.glob("shard-*.safetensors"))

    def write(self, index: int, chats: Chats) -> None:
        """Write a shard; it is there under its name only when it is whole."""
        tensors = {"ids": chats.ids, "writers": chats.writers, "hidden": chats.hidden}
        write_tensors(tensors, self.path(index))

    def read(self, index: int) -> Chats:
        """One shard."""
        return Chats(**load_file(self.path(index)))

    def shape(self, index: int) -> tuple[int, int]:
        """(chats, tokens) of a shard."""
        with safe_open(self.path(index), framework="pt") as file:
            chats, tokens = file.get_slice("ids").get_shape()
        return chats, tokens

    def said(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A shard's ids and writers; its hidden states, most of the file, stay on disk."""
        with safe_open(self.path(index), framework="pt") as file:
            return file.get_tensor("ids"), file.get_tensor("writers")

    def split(self, most: int | None) -> tuple[list[int], int]:
        """Shards to learn from, at most so many, and the last one, which is held out."""
        *others, last = self.shards()
        if not others:
            raise ModelError(f"corpus {self.folder}: holds one shard, two are the least")
        return others[:most], last
