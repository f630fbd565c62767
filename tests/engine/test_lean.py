"""Laws of the lean layers: the stock model's logits up to rounding, whatever shares the step."""

import numpy as np
import pytest
import torch

from actors.engine.attention import KEY_MULTIPLE
from actors.engine.build import EngineSpec, TierSource, build_engines
from actors.engine.lean import LeanDecoder, make_lean
from actors.engine.loader import load_full
from actors.engine.packed import pack_linears
from actors.engine.seam import Extend, Propose
from policies.vocabulary import Tier
from tests.engine.test_row_invariance import alone, in_a_crowd
from tests.engine.toys import CPU, context, save_toy, text

LEAN = ("llama", "qwen3")
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def lean_of(model_dir, packed=True):
    model = load_full(model_dir, torch.float32, CPU)
    make_lean(model)
    if packed:
        pack_linears([model])
    return model


@pytest.fixture(params=LEAN)
def architecture(request) -> str:
    return request.param


@pytest.mark.parametrize("packed", [False, True])
def test_a_lean_model_computes_what_the_stock_one_computes(
    architecture, packed, toy_dirs, load_toy, engine_of
):
    """Past the first chunk of keys, in one pass and token by token."""
    tokens = text(5, KEY_MULTIPLE + 40)
    expected = alone(engine_of(load_toy(architecture)), tokens, 30)
    lean = engine_of(lean_of(toy_dirs[architecture], packed), row_invariant=False)
    torch.testing.assert_close(alone(lean, tokens, 30), expected, **CLOSE)
    asked = context("s", tokens)
    singly = [lean.logits([Extend(asked, len(tokens) - 29 + i, 1)])[0][0] for i in range(30)]
    lean.release("s")
    torch.testing.assert_close(torch.stack(singly), expected, **CLOSE)


def test_company_changes_no_more_than_rounding(architecture, toy_dirs, load_toy, engine_of):
    lengths = (6, 20, 40, 127, 131)
    texts = [text(n, n) for n in lengths]
    stock = engine_of(load_toy(architecture))
    lean = engine_of(lean_of(toy_dirs[architecture]), num_slots=5, row_invariant=False)
    starts = [n - 5 for n in lengths]
    got = in_a_crowd(lean, texts, starts, np.random.default_rng(3))
    for tokens, rows in zip(texts, got, strict=True):
        torch.testing.assert_close(rows, alone(stock, tokens, 5), **CLOSE)


def test_other_kinds_and_windows_stay_as_they_are(toy_dirs, tmp_path):
    for model_dir in (
        toy_dirs["gemma2"],
        save_toy(tmp_path, "qwen3", use_sliding_window=True, sliding_window=40),
    ):
        model = load_full(model_dir, torch.float32, CPU)
        inner = model.model
        make_lean(model)
        assert model.model is inner


def test_biases_are_joined_too(tmp_path, engine_of):
    model_dir = save_toy(tmp_path, "llama", attention_bias=True, mlp_bias=True)
    stock = load_full(model_dir, torch.float32, CPU)
    torch.manual_seed(1)
    for name, parameter in stock.named_parameters():
        if name.endswith(".bias"):
            parameter.normal_()
    stock.save_pretrained(model_dir)
    expected = alone(engine_of(stock), text(1, 20), 5)
    lean = engine_of(lean_of(model_dir), row_invariant=False)
    torch.testing.assert_close(alone(lean, text(1, 20), 5), expected, **CLOSE)


def test_only_a_draft_is_lean_and_full_stays_whole(architecture, toy_dirs, tmp_path):
    """Also where full is the draft's own model."""
    full_dir, other = str(toy_dirs[architecture]), str(save_toy(tmp_path, architecture, seed=1))
    for draft_dir in (full_dir, other):
        tiers = {Tier.FULL: TierSource(full_dir), Tier.DRAFT: TierSource(draft_dir)}
        engines = build_engines(EngineSpec(tiers, "float32", "cpu", 2, 64, 64))
        assert not isinstance(engines[Tier.FULL].model.model, LeanDecoder)
        assert isinstance(engines[Tier.DRAFT].model.model, LeanDecoder) == (draft_dir == other)
        assert engines[Tier.FULL].row_invariant
        assert not engines[Tier.DRAFT].row_invariant
        asked = context("s", text(2, 9))
        assert len(engines[Tier.DRAFT].propose([Propose(asked, 4)])[0]) == 4
