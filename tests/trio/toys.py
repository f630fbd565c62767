"""Sizes of the trio's toys, and a toy as the corpus writer loads it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from cluster.trio.text.lockstep import ATTENTION_NAME

IDLE = (2, 3, 5)
"""Layers that change nothing; the best route of what is left leaves them out."""
CHATS, TOKENS = 6, 48


def lockstep_model(folder: Path) -> PreTrainedModel:
    """A saved model with the attention of chats in lockstep."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=ATTENTION_NAME
    ).eval()
