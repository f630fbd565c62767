"""Law: a row's logits are bitwise the same whatever shares its step (DESIGN section 2)."""

import functools

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.engine.build import EngineSpec, TierSource, build_engines
from actors.engine.invariance import rows_are_invariant
from actors.engine.loader import load_full
from actors.engine.packed import pack_linears
from actors.engine.seam import Extend
from policies.vocabulary import Tier
from tests.engine.toys import ARCHITECTURES, CPU, VOCAB, context, text

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LENGTHS = (3, 4, 5, 40, 127, 128, 129, 131, 140, 250, 256, 257, 300, 511, 512, 513, 520)
SLOT_TOKENS = 640


@functools.cache
def _loaded(model_dir, dtype, packed):
    model = load_full(model_dir, DTYPES[dtype], CPU)
    if packed:
        pack_linears([model])
    return model


@pytest.fixture(params=ARCHITECTURES)
def architecture(request) -> str:
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request) -> str:
    return request.param


@pytest.fixture(params=[False, True], ids=["dense", "packed"])
def toy(request, architecture, dtype, toy_dirs):
    """Both forms of the linear layers that the server runs."""
    return _loaded(toy_dirs[architecture], dtype, request.param)


def alone(engine, tokens, rows) -> torch.Tensor:
    """Logits of the last `rows` rows, computed in one pass with nobody beside."""
    asked = context("alone", tokens)
    [found] = engine.logits([Extend(asked, len(tokens), rows)])
    engine.release("alone")
    return torch.stack(found)


def in_a_crowd(engine, texts, first_scored, rng) -> list[torch.Tensor]:
    """Logits of every session's rows from `first_scored` on; which sessions share a step, in
    which order and with how many rows each is left to chance."""
    contexts = [context(f"s{i}", tokens) for i, tokens in enumerate(texts)]
    found: list[list[torch.Tensor]] = [[] for _ in texts]
    ends = list(first_scored)
    step = 0
    while going := [i for i, tokens in enumerate(texts) if ends[i] < len(tokens)]:
        # Every third step is a crowd, so that the first ones prefill side by side.
        count = len(going) if step % 3 == 0 else rng.integers(1, len(going) + 1)
        asked = []
        for i in rng.permutation(going)[:count]:
            rows = min(int(rng.choice([1, 1, 2, 3, 4, 5, 9, 17])), len(texts[i]) - ends[i])
            ends[i] += rows
            asked.append((i, Extend(contexts[i], ends[i], rows)))
        for (i, _), rows in zip(asked, engine.logits([e for _, e in asked]), strict=True):
            found[i] += rows
        step += 1
    engine.check_integrity(contexts)
    for one in contexts:
        engine.release(one.session_id)
    return [torch.stack(rows) for rows in found]


@pytest.mark.parametrize(("num_sessions", "token_budget"), [(2, 16), (7, 96), (16, 512)])
def test_company_changes_no_bit(toy, engine_of, num_sessions, token_budget):
    rng = np.random.default_rng(num_sessions * 1000 + token_budget)
    lengths = rng.permutation(LENGTHS)[:num_sessions]
    texts = [text(int(n), int(n)) for n in lengths]
    rows = [min(len(t) - 1, 12) for t in texts]
    whole = engine_of(toy, num_slots=1, slot_tokens=SLOT_TOKENS, token_budget=SLOT_TOKENS)
    shared = engine_of(
        toy, num_slots=num_sessions, slot_tokens=SLOT_TOKENS, token_budget=token_budget
    )
    expected = [alone(whole, t, n) for t, n in zip(texts, rows, strict=True)]
    got = in_a_crowd(shared, texts, [len(t) - n for t, n in zip(texts, rows, strict=True)], rng)
    for length, ours, theirs in zip(lengths, got, expected, strict=True):
        assert torch.equal(ours, theirs), length


@pytest.mark.parametrize("token_budget", [7, 129, 300])
def test_a_pass_cut_anywhere_changes_no_bit(toy, engine_of, token_budget):
    """Across 128, 256 and 512 keys."""
    tokens = text(1, 540)
    whole = engine_of(toy, num_slots=1, slot_tokens=SLOT_TOKENS, token_budget=SLOT_TOKENS)
    cut = engine_of(toy, num_slots=1, slot_tokens=SLOT_TOKENS, token_budget=token_budget)
    assert torch.equal(alone(cut, tokens, 540), alone(whole, tokens, 540))


def test_the_slot_changes_no_bit(toy, engine_of):
    """A slot that others used before, at either end of the table, in short and long slots."""
    tokens = text(2, 150)
    small = engine_of(toy, num_slots=1, slot_tokens=256, token_budget=64)
    expected = alone(small, tokens, 30)
    large = engine_of(toy, num_slots=6, slot_tokens=SLOT_TOKENS, token_budget=200)
    for i in range(5):
        large.extend([Extend(context(f"other{i}", text(i + 10, 600)), 600, 0)])
        assert torch.equal(alone(large, tokens, 30), expected)
    for i in range(5):
        large.release(f"other{i}")
    assert torch.equal(alone(large, tokens, 30), expected)


def test_work_split_over_threads_changes_no_bit(dtype, load_toy, engine_of):
    """The split differs with the size of the work; no row may notice."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        engine = engine_of(load_toy("qwen3", DTYPES[dtype]), num_slots=5, token_budget=256)
        tokens, others = text(3, 140), [context(f"o{i}", text(i, 120)) for i in range(4)]
        expected = alone(engine, tokens, 20)
        beside = [Extend(context("alone", tokens), 140, 20), *(Extend(o, 120, 9) for o in others)]
        assert torch.equal(torch.stack(engine.logits(beside)[0]), expected)
        for session_id in ("alone", *(o.session_id for o in others)):
            engine.release(session_id)
    finally:
        torch.set_num_threads(before)


def test_the_start_up_check_agrees(toy, engine_of):
    assert rows_are_invariant(engine_of(toy, num_slots=4), VOCAB)


def test_it_computes_what_stock_attention_computes(architecture, toy_dirs, load_toy, engine_of):
    """Grouped heads, head_dim apart from hidden / heads, softcaps, a window of 40 tokens."""
    tokens = text(5, 300)
    engine = engine_of(load_toy(architecture), slot_tokens=300, token_budget=37)
    stock = AutoModelForCausalLM.from_pretrained(
        toy_dirs[architecture], dtype=torch.float32, attn_implementation="eager"
    )
    with torch.inference_mode():
        expected = stock(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(alone(engine, tokens, 300), expected, atol=1e-4, rtol=1e-4)


def test_the_window_hides_what_is_behind_it(load_toy, engine_of):
    """Not vacuous: without its window Gemma2 would say something else."""
    model, tokens = load_toy("gemma2"), text(5, 300)
    engine = engine_of(model, slot_tokens=300)
    before = alone(engine, tokens, 5)
    engine._forward._window = None
    assert not torch.allclose(alone(engine, tokens, 5), before, atol=1e-2)


@pytest.fixture(
    scope="module", params=["float32", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
def served(request, default_model_dir):
    """The default model as a worker builds it."""
    spec = EngineSpec(
        {Tier.FULL: TierSource(str(default_model_dir))},
        dtype=request.param,
        device="cpu",
        num_slots=6,
        slot_tokens=256,
        token_budget=64,
    )
    engine = build_engines(spec)[Tier.FULL]
    yield engine
    engine.check_integrity()
    assert engine.stats().sessions == 0


def test_company_changes_no_bit_of_the_default_model(served):
    rng = np.random.default_rng(3)
    lengths = (6, 9, 20, 60, 127, 132)
    texts = [text(n, n, served.vocab_size) for n in lengths]
    expected = [alone(served, t, 5) for t in texts]
    got = in_a_crowd(served, texts, [n - 5 for n in lengths], rng)
    for length, ours, theirs in zip(lengths, got, expected, strict=True):
        assert torch.equal(ours, theirs), length
