"""Toy models with a tokenizer and with layers that do nothing, and one thread for torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from actors.engine.route import fingerprint
from cluster.trio.text.corpus import Corpus
from cluster.trio.text.lockstep import Recipe, write_chats
from cluster.trio.text.turns import Turns
from tests.engine.conftest import one_thread  # noqa: F401
from tests.engine.toys import save_words, toy_model
from tests.trio.toys import CHATS, IDLE, TOKENS, lockstep_model

PLAIN = Turns((1,), (), (), frozenset())


@pytest.fixture(scope="session")
def idle_dir(tmp_path_factory) -> Path:
    """A model folder whose layers IDLE change nothing, with a tokenizer of words t0, t1, …"""
    folder = tmp_path_factory.mktemp("idle")
    model = toy_model("llama", num_hidden_layers=7)
    with torch.no_grad():
        for layer in IDLE:
            model.model.layers[layer].self_attn.o_proj.weight.zero_()
            model.model.layers[layer].mlp.down_proj.weight.zero_()
    model.save_pretrained(folder)
    return save_words(folder)


@pytest.fixture(scope="session")
def corpus_dir(idle_dir, tmp_path_factory) -> Path:
    """Two shards that the model wrote, plain text without turns."""
    corpus = Corpus(tmp_path_factory.mktemp("corpus"))
    corpus.claim({"model": fingerprint(idle_dir)})
    model = lockstep_model(idle_dir)
    for shard in range(2):
        recipe = Recipe(tokens=TOKENS)
        corpus.write(shard, write_chats(model, PLAIN, [], recipe, CHATS, seed=shard))
    return corpus.folder
