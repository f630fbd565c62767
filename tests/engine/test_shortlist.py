"""Laws of a shortened head: the choices of the whole head among the ids of the list."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from actors.engine import sampler
from actors.engine.loader import load_full, load_sliced, slim_of
from actors.engine.route import ModelError
from actors.engine.seam import Extend, Propose
from actors.engine.shortlist import Columns, read_shortlist
from policies import sampling
from policies.vocabulary import SamplingParams
from tests.engine.test_loader import KEPT, logits_of, route_of, storages
from tests.engine.test_sampler import PARAMS, masks, rows_of_logits, spec_of
from tests.engine.test_transformers_engine import PARAMS as FEW_PARAMS
from tests.engine.toys import ARCHITECTURES, CPU, VOCAB, context, make_engine, text

over_architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
IDS = torch.arange(3, VOCAB, 5)


@st.composite
def lists(draw, vocab: int) -> torch.Tensor:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    taken = rng.random(vocab) < draw(st.sampled_from([0.01, 0.3, 0.9, 1.0]))
    taken[rng.integers(vocab)] = True
    return torch.from_numpy(np.flatnonzero(taken))


@given(
    rows=rows_of_logits(num_rows=3),
    params=PARAMS,
    seed=st.integers(-(2**63), 2**63 - 1),
    data=st.data(),
)
def test_choices_and_verdicts_are_the_whole_heads_among_the_listed(rows, params, seed, data):
    vocab = rows.shape[1]
    ids = data.draw(lists(vocab))
    listed = torch.zeros(vocab, dtype=torch.bool)
    listed[ids] = True
    allowed = None
    if data.draw(st.booleans()):
        allowed = torch.from_numpy(data.draw(masks(rows.shape)))
        allowed[:, ids[0]] = True  # else nothing is possible, and nothing said of the choice
    tokens = [t % vocab for t in (1, 7, 7, 49, 1, 0)]
    spec, first = spec_of(params, seed, prompt_len=3), len(tokens) - 2
    logits = torch.from_numpy(rows)
    whole = logits.masked_fill(~listed, -math.inf)
    short, columns = logits[:, ids], Columns(vocab, ids)
    chosen = sampler.choose(whole, spec, tokens, first, allowed)
    assert sampler.choose(short, spec, tokens, first, allowed, columns) == chosen
    expected = sampler.judge(whole, spec, tokens, first, chosen, allowed)
    found = sampler.judge(short, spec, tokens, first, chosen, allowed, columns)
    for told, law, drafted in zip(found, expected, tokens[first:], strict=True):
        assert told.ratio == pytest.approx(law.ratio, rel=1e-6)
        assert told.margin == pytest.approx(law.margin, rel=1e-6, abs=1e-12)
        assert told.own_logprob == pytest.approx(law.own_logprob, rel=1e-6, abs=1e-9)
        if not listed[drafted]:
            assert (told.ratio, told.logprob) == (0.0, -math.inf)


@pytest.mark.parametrize("params", FEW_PARAMS, ids=range(len(FEW_PARAMS)))
@over_architectures
def test_an_engine_with_a_shortlist_chooses_by_the_law(toy_dirs, architecture, params):
    """Of the whole head's logits, with every other id forbidden; decoding and in one pass."""
    whole = make_engine(load_sliced(toy_dirs[architecture], route_of(), torch.float32, CPU))
    full = load_full(toy_dirs[architecture], torch.float32, CPU)
    engine = make_engine(slim_of(full, route_of(), None, IDS))
    asked = context("s", text(3, 30), params, seed=5, prompt_len=20)
    [chosen] = engine.propose([Propose(asked, 12)])
    assert set(chosen) <= set(IDS.tolist())
    [again] = engine.extend([Extend(asked, len(asked.tokens) - 1, 12)])
    [rows] = whole.logits([Extend(asked, len(asked.tokens) - 1, 12)])
    listed = np.isin(np.arange(VOCAB), IDS)
    law = [
        sampling.choose(row.numpy(), asked.sampling, asked.tokens[: 30 + i], listed)
        for i, row in enumerate(rows)
    ]
    assert chosen == again == law


@over_architectures
def test_both_ways_of_loading_give_the_listed_columns_of_the_whole_head(toy_dirs, architecture):
    full = load_full(toy_dirs[architecture], torch.float32, CPU)
    before = logits_of(full)
    plain = logits_of(slim_of(full, route_of(), None))
    for model in (
        slim_of(full, route_of(), None, IDS),
        load_sliced(toy_dirs[architecture], route_of(), torch.float32, CPU, None, IDS),
    ):
        short = logits_of(model)
        # Products over fewer columns may add up in another order.
        torch.testing.assert_close(short[:, IDS], plain[:, IDS], rtol=1e-5, atol=1e-5)
        others = [i for i in range(VOCAB) if i not in IDS]
        assert torch.isneginf(short[:, others]).all()
    assert torch.equal(logits_of(full), before)


@over_architectures
def test_only_the_listed_rows_of_the_head_are_held(toy_dirs, architecture):
    state = load_file(toy_dirs[architecture] / "model.safetensors")
    gone = ("model.layers.2.", "lm_head.")
    needed = sum(t.nbytes for name, t in state.items() if not name.startswith(gone))
    rows = len(IDS) * 96 * 4
    sliced = load_sliced(toy_dirs[architecture], route_of(), torch.float32, CPU, None, IDS)
    assert sum(p.nbytes for p in sliced.parameters()) == needed + rows
    full = load_full(toy_dirs[architecture], torch.float32, CPU)
    own = storages(slim_of(full, route_of(), None, IDS)) - storages(full)
    assert len(own) == 2, "the head's rows and the list"


def test_a_listed_id_that_the_full_model_lacks_is_never_chosen(toy_dirs):
    sliced = load_sliced(toy_dirs["llama"], route_of(), torch.float32, CPU, None, IDS)
    engine = make_engine(sliced, vocab_size=100)
    [chosen] = engine.propose([Propose(context("s", text(1, 20, 100)), 30)])
    assert set(chosen) <= {i for i in IDS.tolist() if i < 100}


def test_a_shortened_slim_judges_and_tells_logarithms_by_full_ids(toy_dirs):
    sliced = load_sliced(toy_dirs["qwen3"], route_of(), torch.float32, CPU, None, IDS)
    engine = make_engine(sliced)
    asked = context("s", [*text(1, 10), int(IDS[4]), 4, 4], SamplingParams(temperature=0.8))
    [rows] = engine.score([Extend(asked, 12, 3, judge=True, num_logprobs=2)])
    inside, outside = rows[0].verdict, rows[1].verdict
    assert inside.ratio > 0.0
    assert (outside.ratio, outside.logprob) == (0.0, -math.inf)
    assert all(token in IDS for row in rows for token, _ in row.logprobs.top)
    assert all(row.chosen in IDS for row in rows)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_a_good_shortlist_is_read(tmp_path, dtype):
    save_file({"ids": IDS.to(dtype)}, tmp_path / "s.safetensors")
    ids = read_shortlist(tmp_path / "s.safetensors", VOCAB)
    assert ids.dtype == torch.int64
    assert torch.equal(ids, IDS)


@pytest.mark.parametrize(
    "tensors",
    [
        {"ids": torch.tensor([1, 3, 2])},
        {"ids": torch.tensor([1, 1, 2])},
        {"ids": torch.tensor([-1, 1])},
        {"ids": torch.tensor([1, VOCAB])},
        {"ids": torch.tensor([], dtype=torch.int64)},
        {"ids": torch.tensor(3)},
        {"ids": torch.tensor([[1, 2]])},
        {"ids": torch.tensor([1.0, 2.0])},
        {"tokens": torch.tensor([1, 2])},
        {"ids": torch.tensor([1, 2]), "more": torch.tensor([1])},
        b"junk",
    ],
)
def test_a_shortlist_that_cannot_be_used_is_refused_in_one_line(tmp_path, tensors):
    path = tmp_path / "s.safetensors"
    path.write_bytes(tensors) if isinstance(tensors, bytes) else save_file(tensors, path)
    with pytest.raises(ModelError, match="shortlist") as refused:
        read_shortlist(path, VOCAB)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_delta_may_change_the_rows_left_of_the_head(toy_dirs, tmp_path):
    path = tmp_path / "delta.safetensors"
    save_file({"lm_head.weight": torch.ones(len(IDS), 96) * 0.1}, path)
    full = load_full(toy_dirs["gemma2"], torch.float32, CPU)
    shared = slim_of(full, route_of(), path, IDS)
    sliced = load_sliced(toy_dirs["gemma2"], route_of(), torch.float32, CPU, path, IDS)
    expected = full.lm_head.weight[IDS] + 0.1
    assert torch.equal(shared.lm_head.rows.weight, expected)
    assert torch.equal(sliced.lm_head.rows.weight, expected)
    assert torch.equal(logits_of(shared), logits_of(sliced))
    assert len(shared.model.layers) == len(KEPT)
