"""The full model's head: what it would choose, from last hidden states that are on disk.

It knows one weight matrix; the layers below were paid for when the text was written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from actors.engine.loader import load_config, readable
from actors.engine.route import ModelError

_HEADS = ("lm_head.weight", "model.embed_tokens.weight")


@dataclass(frozen=True, slots=True)
class Head:
    """weight: (V, width); `softcap` of the logits, as Gemma2 has one."""

    weight: torch.Tensor
    softcap: float | None = None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(…, width), after the last norm -> (…, V), of the weight's dtype."""
        return self.capped(hidden.to(self.weight.dtype) @ self.weight.T)

    def capped(self, logits: torch.Tensor) -> torch.Tensor:
        """Of any product of hidden states and a head like this one."""
        if self.softcap is None:
            return logits
        return torch.tanh(logits / self.softcap) * self.softcap

    def gradient(self, logits: torch.Tensor, at_logits: torch.Tensor) -> torch.Tensor:
        """What a gradient at `logits`, (rows, V), is at the hidden states, (rows, width)."""
        if self.softcap is not None:
            at_logits = at_logits * (1 - (logits.float() / self.softcap) ** 2)
        return at_logits.to(self.weight.dtype) @ self.weight

    def of(self, ids: torch.Tensor) -> Head:
        """The head that knows only `ids`."""
        return Head(self.weight[ids].contiguous(), self.softcap)


def load_head(model_dir: Path, dtype: torch.dtype) -> Head:
    """A model folder's head; its embedding where both are tied."""
    config = load_config(model_dir)
    softcap = getattr(config, "final_logit_softcapping", None)
    with readable(f"model {model_dir}"):
        found = {}
        for path in sorted(model_dir.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                found |= {n: file.get_tensor(n) for n in _HEADS if n in set(file.keys())}
    for name in _HEADS:
        if name in found:
            return Head(found[name].to(dtype), softcap)
    raise ModelError(f"model {model_dir}: no {' and no '.join(_HEADS)} there")
