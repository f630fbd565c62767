"""Laws of the engine's verbs: its cache saves work and changes no token."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.engine.kv import SlotTable
from actors.engine.loader import load_full
from actors.engine.seam import Extend, NoRoom, Propose
from policies import sampling
from policies.vocabulary import SamplingParams
from tests.engine.toys import ARCHITECTURES, CPU, VOCAB, context, make_engine, save_toy, text

RICH = SamplingParams(
    temperature=0.9,
    top_k=30,
    top_p=0.95,
    min_p=0.01,
    repetition_penalty=1.3,
    presence_penalty=0.6,
    frequency_penalty=0.8,
    logit_bias=((5, 1.5), (9, -3.0)),
)
PARAMS = [
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=0.0, frequency_penalty=2.0, presence_penalty=1.0),
    SamplingParams(temperature=0.0, repetition_penalty=3.0),
    SamplingParams(),
    RICH,
]
over_architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
over_params = pytest.mark.parametrize("params", PARAMS, ids=range(len(PARAMS)))


@pytest.fixture
def engine(load_toy, engine_of):
    return engine_of(load_toy("gemma2"))


def decode(engine, asked, num_tokens: int) -> list[int]:
    """Plain decoding, then nothing is left in the engine."""
    [found] = engine.propose([Propose(asked, num_tokens)])
    engine.check_integrity([asked])
    engine.release(asked.session_id)
    return found


@over_architectures
@over_params
def test_one_pass_over_a_block_gives_what_decoding_token_by_token_gives(
    load_toy, engine_of, architecture, params
):
    """Penalties within a block count the block's earlier tokens."""
    engine = engine_of(load_toy(architecture))
    prompt = text(3, 60)
    plain = decode(engine, context("plain", prompt, params, seed=8, prompt_len=50), 24)
    whole = context("block", prompt + plain, params, seed=8, prompt_len=50)
    [judged] = engine.extend([Extend(whole, len(whole.tokens) - 1, len(plain))])
    engine.release("block")
    assert judged == plain
    assert len(set(plain)) > 1 or not params.has_penalties


@over_params
def test_the_choice_is_the_laws_of_its_logits(engine, params):
    tokens = text(4, 30)
    asked = context("s", tokens, params, seed=-3, prompt_len=20)
    [rows] = engine.logits([Extend(asked, 30, 12)])
    [chosen] = engine.extend([Extend(asked, 30, 12)])
    engine.release("s")
    law = [
        sampling.choose(row.float().numpy(), asked.sampling, tokens[: 19 + i])
        for i, row in enumerate(rows)
    ]
    assert chosen == law


@given(cuts=st.sets(st.integers(1, 49), max_size=6), scored=st.integers(0, 50), data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_pieces_give_what_one_pass_gives(load_toy, cuts, scored, data):
    engine = make_engine(load_toy("qwen3"), token_budget=data.draw(st.integers(6, 60)))
    tokens = text(5, 50)
    [whole] = engine.extend([Extend(context("whole", tokens), 50, 50)])
    asked = context("pieces", tokens)
    for end in sorted(cuts | {50}):
        rows = data.draw(st.integers(0, end)) if end < 50 else scored
        [ids] = engine.extend([Extend(asked, end, rows)])
        assert ids == whole[end - rows : end]
    engine.check_integrity([asked])


@given(steps=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_other_tokens_after_truncation_give_what_a_fresh_engine_gives(load_toy, steps):
    engine = make_engine(load_toy("gemma2"), num_slots=2, token_budget=16)
    asked = context("s", text(6, 30), RICH, prompt_len=5)
    engine.extend([Extend(asked, 30, 0)])
    for i, (kept, more) in enumerate(steps):
        kept = max(1, min(kept, len(asked.tokens)))
        del asked.tokens[kept:]
        engine.truncate("s", kept)
        asked.tokens += text(100 + i, more)
        # One scored row: the rows before it are taken from the cache where it has them.
        [found] = engine.extend([Extend(asked, len(asked.tokens), 1)])
        fresh = context("fresh", asked.tokens, RICH, prompt_len=5)
        assert engine.extend([Extend(fresh, len(asked.tokens), 1)]) == [found]
        engine.check_integrity([asked, fresh])
        engine.release("fresh")


def test_asking_again_gives_the_same(engine):
    asked = context("s", text(7, 40), RICH, prompt_len=5)
    first = engine.extend([Extend(asked, 40, 10)])
    assert engine.extend([Extend(asked, 40, 10)]) == first
    assert engine.extend([Extend(asked, 35, 5)]) == [first[0][:5]]
    assert engine.extend([Extend(asked, 40, 10)]) == first
    engine.release("s")


def test_what_is_cached_is_not_computed_again(engine):
    asked = context("s", text(8, 40))
    engine.extend([Extend(asked, 40, 0)])
    rows = engine.stats().rows
    assert rows == 40
    engine.extend([Extend(asked, 40, 0)])
    assert engine.stats().rows == rows
    asked.tokens.append(9)
    engine.extend([Extend(asked, 41, 3)])
    assert engine.stats().rows == rows + 3
    assert engine.stats().cached_tokens == 41
    engine.release("s")


@pytest.mark.parametrize(
    ("token_budget", "lengths", "forwards"),
    [(64, [64], 1), (64, [65], 2), (10, [25, 3], 3), (7, [1, 1, 1], 1), (1, [3, 2], 5)],
)
def test_no_forward_takes_more_rows_than_the_budget(
    load_toy, engine_of, monkeypatch, token_budget, lengths, forwards
):
    engine = engine_of(load_toy("llama"), token_budget=token_budget)
    sizes: list[int] = []
    logits = engine._logits
    monkeypatch.setattr(
        engine, "_logits", lambda ids, *rest: (sizes.append(len(ids)), logits(ids, *rest))[1]
    )
    asked = [context(f"s{i}", text(i, n)) for i, n in enumerate(lengths)]
    engine.extend([Extend(a, len(a.tokens), 1) for a in asked])
    assert max(sizes) <= token_budget
    assert (len(sizes), sum(sizes)) == (forwards, sum(lengths))
    assert (engine.stats().forwards, engine.stats().rows) == (forwards, sum(lengths))
    for one in asked:
        engine.release(one.session_id)


def test_decoding_side_by_side_takes_one_forward_a_token(engine):
    asked = [context(f"s{i}", text(i, 5 + i)) for i in range(4)]
    alone = [decode(engine, context("alone", a.tokens), 6) for a in asked]
    before = engine.stats().forwards
    together = engine.propose([Propose(a, 6) for a in asked])
    assert together == alone
    assert engine.stats().forwards - before == 6
    for one in asked:
        engine.release(one.session_id)


def test_sessions_stop_one_by_one_behind_a_stop_id_or_at_their_length(engine):
    prompts = [text(i, 6) for i in range(3)]
    free = [decode(engine, context("free", p), 9) for p in prompts]
    stops = frozenset({free[0][4]})
    asked = [context(f"s{i}", p, stop_ids=stops) for i, p in enumerate(prompts)]
    wanted = (9, 3, 0)
    found = engine.propose([Propose(a, n) for a, n in zip(asked, wanted, strict=True)])
    for prompt, context_, got, tokens, num in zip(prompts, asked, found, free, wanted, strict=True):
        ends = [i for i, t in enumerate(tokens[:num]) if t in stops]
        assert got == tokens[: ends[0] + 1 if ends else num]
        assert context_.tokens == prompt + got
        engine.release(context_.session_id)


def test_an_evicted_session_comes_back_the_same(load_toy, engine_of):
    """More sessions than slots, in turn: the longest idle one gives way and is recomputed."""
    engine = engine_of(load_toy("gemma2"), num_slots=2)
    asked = [context(f"s{i}", text(i, 20 + 9 * i), RICH, prompt_len=3) for i in range(5)]
    expected = [decode(engine, context("alone", a.tokens, RICH, prompt_len=3), 8) for a in asked]
    starts = [len(a.tokens) for a in asked]
    for turn, one in itertools.product(range(4), asked):
        assert engine.stats().sessions <= 2, turn
        engine.propose([Propose(one, 2)])
        engine.check_integrity(asked)
    assert [a.tokens[n:] for a, n in zip(asked, starts, strict=True)] == expected
    assert engine.stats().rows > sum(len(a.tokens) for a in asked)
    for one in asked:
        engine.release(one.session_id)


def test_more_sessions_in_a_step_than_slots_is_no_room_and_harms_nobody(load_toy, engine_of):
    engine = engine_of(load_toy("llama"), num_slots=2)
    asked = [context(f"s{i}", text(i, 10), RICH, prompt_len=3) for i in range(3)]
    expected = [decode(engine, context("alone", a.tokens, RICH, prompt_len=3), 1) for a in asked]
    with pytest.raises(NoRoom, match="3 sessions"):
        engine.extend([Extend(a, 10, 1) for a in asked])
    engine.check_integrity(asked)
    for one, ids in zip(asked, expected, strict=True):
        assert engine.extend([Extend(one, 10, 1)]) == [ids]
    for one in asked:
        engine.release(one.session_id)


def test_the_least_recently_used_slot_is_given_up():
    table = SlotTable(num_slots=3, slot_tokens=128)
    for session_id in ("a", "b", "c", "a"):
        table.acquire(session_id, keep=())
    table.acquire("d", keep=("d",))
    assert [table.get(s) is None for s in "abcd"] == [False, True, False, False]
    table.acquire("e", keep=("c", "e"))
    assert [table.get(s) is None for s in "acde"] == [True, False, False, False]
    table.release("c")
    table.release("unknown")
    assert table.acquire("f", keep=()).index == 2
    table.check_integrity()


def test_release_gives_everything_back(engine):
    for i in range(12):
        engine.extend([Extend(context(f"s{i}", text(i, 20)), 20, 1)])
        engine.release(f"s{i}")
        engine.release(f"s{i}")
    engine.truncate("unknown", 0)
    assert engine.stats().cached_tokens == 0


def test_a_stale_cache_is_found_by_the_integrity_check(engine):
    asked = context("s", text(1, 20))
    engine.extend([Extend(asked, 20, 0)])
    asked.tokens[3] = 0
    with pytest.raises(AssertionError):
        engine.check_integrity([asked])
    engine.release("s")


@pytest.mark.parametrize(("upto", "num_score"), [(21, 1), (5, 6), (10, -1)])
def test_nothing_outside_the_context_can_be_asked(engine, upto, num_score):
    with pytest.raises(AssertionError):
        engine.extend([Extend(context("s", text(1, 20)), upto, num_score)])
    engine.release("s")


def test_a_session_fills_its_slot_to_the_last_token_and_no_further(load_toy, engine_of):
    engine = engine_of(load_toy("llama"), slot_tokens=128, num_slots=1)
    asked = context("s", text(1, 129))
    assert len(engine.extend([Extend(asked, 128, 1)])[0]) == 1
    with pytest.raises(AssertionError):
        engine.extend([Extend(asked, 129, 1)])
    engine.release("s")


def test_sizes_are_told(load_toy, engine_of):
    model = load_toy("llama")
    stats = engine_of(model, num_slots=3, slot_tokens=200).stats()
    assert (stats.slots, stats.slot_tokens) == (3, 256)
    # Four layers, keys and values, two heads of sixteen float32.
    assert stats.kv_bytes_per_token == 4 * 2 * 2 * 16 * 4
    buffers = sum(b.nbytes for b in {b.data_ptr(): b for b in model.buffers()}.values())
    tensors = {p.data_ptr(): p for p in model.parameters()}
    assert stats.weight_bytes == sum(p.nbytes for p in tensors.values()) + buffers


@over_params
@pytest.mark.parametrize("own", [VOCAB - 56, VOCAB + 44], ids=["smaller", "larger"])
def test_a_model_of_another_vocabulary_size_proposes_ids_of_the_full_models(tmp_path, own, params):
    """Models that share a tokenizer may pad its vocabulary differently."""
    model = load_full(save_toy(tmp_path, "llama", vocab_size=own), torch.float32, CPU)
    engine = make_engine(model, vocab_size=VOCAB)
    asked = context("s", [*text(4, 20, min(own, VOCAB)), VOCAB - 1], params, prompt_len=10)
    held = list(asked.tokens)
    [[row]] = engine.logits([Extend(asked, len(held), 1)])
    alone = make_engine(model)
    stand_in = context("s", [token if token < own else 0 for token in held])
    [[known]] = alone.logits([Extend(stand_in, len(held), 1)])
    shared = min(own, VOCAB)
    assert row.shape == (VOCAB,)
    assert torch.equal(row[:shared], known[:shared])
    assert torch.isneginf(row[shared:]).all()
    chosen = decode(engine, asked, 40)
    assert len(chosen) == 40
    assert max(chosen) < shared


def test_no_gradient_is_kept(engine):
    asked = context("s", text(1, 8))
    [[row]] = engine.logits([Extend(asked, 8, 1)])
    engine.release("s")
    assert not row.requires_grad
    assert not any(p.requires_grad for p in engine._model.parameters())
    assert isinstance(row, torch.Tensor)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("threshold", [0.02, 0.2, 0.9])
def test_a_proposal_ends_where_it_is_no_longer_sure(load_toy, temperature, threshold):
    """The last token is the one that takes the product below the threshold; sides by side too."""
    model = load_toy("llama")
    sure, free = make_engine(model, stop_below=threshold), make_engine(model)
    params = SamplingParams(temperature=temperature)
    texts = [text(seed, 20 + seed) for seed in range(4)]
    asked = [context(f"s{i}", tokens, params) for i, tokens in enumerate(texts)]
    stopped = sure.propose([Propose(c, 12) for c in asked])
    lengths = set()
    for tokens, made in zip(texts, stopped, strict=True):
        whole = context("w", tokens, params)
        [expected] = free.propose([Propose(whole, 12)])
        assert made == expected[: len(made)]
        rows = free.logits([Extend(whole, len(whole.tokens) - 1, 12)])[0]
        free.release("w")
        odds = [
            float(torch.softmax(row / (temperature or 1.0), -1)[token])
            for row, token in zip(rows, expected, strict=True)
        ]
        products = np.cumprod(odds)
        assert all(products[: len(made) - 1] >= threshold)
        assert len(made) == 12 or products[len(made) - 1] < threshold
        lengths.add(len(made))
    assert lengths != {12}
