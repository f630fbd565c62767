"""Loads a whole model as transformers has it: offline jobs write and judge text with it.

What serves is loaded by `actors.engine.loader`, with our own attention.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from actors.engine.loader import DTYPES, load_config, readable


def load_stock(
    model_dir: Path, dtype: str, device: str, attention: str | None = None
) -> PreTrainedModel:
    """`attention`: by its registered name; else transformers' own. Raises ModelError."""
    config = load_config(model_dir)
    # The fused attention has no soft cap.
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    auto: Any = AutoModelForCausalLM
    with readable(f"model {model_dir}"):
        model = auto.from_pretrained(
            model_dir,
            dtype=DTYPES[dtype],
            attn_implementation=attention or ("eager" if capped else "sdpa"),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        return model.to(torch.device(device)).eval()
