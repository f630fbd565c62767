"""Law: the tensor sampler chooses what the numpy law chooses, for any logits and rules."""

from dataclasses import astuple, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actors.engine import sampler
from actors.engine.shortlist import Columns
from policies import sampling
from policies.vocabulary import SamplingParams, SamplingSpec

VOCABS = st.sampled_from([2, 50, 127, 128, 129, 700, 5_000])
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.01, 0.3, 0.8, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 40, 200, 10_000]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 0.05, 1e-9]),
    min_p=st.sampled_from([0.0, 1e-4, 0.05, 0.5, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 0.01, 1.2, 100.0]),
    presence_penalty=st.sampled_from([0.0, 0.7, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.3, -2.0]),
    logit_bias=st.lists(
        st.tuples(st.integers(0, 1), st.floats(-100, 100, width=16)), max_size=3
    ).map(tuple),
)


@st.composite
def rows_of_logits(draw, num_rows: int = 1) -> np.ndarray:
    """Flat, peaked, tied: normal logits of several spreads, some rounded to bf16."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0.0, 0.05, 1.0, 4.0, 30.0]))
    logits = rng.normal(0, spread, (num_rows, draw(VOCABS))).astype(np.float32)
    if draw(st.booleans()):
        logits = torch.from_numpy(logits).bfloat16().float().numpy()
    return logits


def spec_of(params: SamplingParams, seed: int, prompt_len: int) -> SamplingSpec:
    return SamplingSpec(params, seed, choice=1, prompt_len=prompt_len)


@st.composite
def masks(draw, shape: tuple[int, int]) -> np.ndarray:
    """Few ids, many or all; never none in a row."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    allowed = rng.random(shape) < draw(st.sampled_from([0.0, 0.01, 0.5, 1.0]))
    allowed[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = True
    return allowed


@given(
    rows=rows_of_logits(num_rows=3),
    params=PARAMS,
    seed=st.integers(-(2**63), 2**63 - 1),
    data=st.data(),
)
def test_the_choice_under_a_grammar_is_the_laws(rows, params, seed, data):
    vocab = rows.shape[1]
    if data.draw(st.booleans()):  # a draft's lacking columns, beside the grammar
        rows[:, vocab // 2 :] = -np.inf
    allowed = data.draw(masks(rows.shape))
    tokens = [t % vocab for t in (1, 7, 7, 49, 1, 0, 3)]
    spec, first = spec_of(params, seed, prompt_len=3), len(tokens) - 2
    expected = [
        sampling.choose(row, spec, tokens[: first + i], mask)
        for i, (row, mask) in enumerate(zip(rows, allowed, strict=True))
    ]
    logits, mask = torch.from_numpy(rows), torch.from_numpy(allowed)
    assert sampler.choose(logits, spec, tokens, first, mask) == expected
    possible = np.isfinite(rows) & allowed
    for i, token in enumerate(expected):
        assert possible[i, token] or not possible[i].any()


@given(rows=rows_of_logits(num_rows=3), params=PARAMS, seed=st.integers(-(2**63), 2**63 - 1))
def test_the_choice_is_the_laws(rows, params, seed):
    vocab = rows.shape[1]
    tokens = [t % vocab for t in (1, 7, 7, 49, 1, 0, 3)]
    spec, first = spec_of(params, seed, prompt_len=3), len(tokens) - 2
    expected = [sampling.choose(row, spec, tokens[: first + i]) for i, row in enumerate(rows)]
    assert sampler.choose(torch.from_numpy(rows), spec, tokens, first) == expected


@given(rows=rows_of_logits(), params=PARAMS)
def test_the_kept_ids_are_the_laws(rows, params):
    scaled = rows[0] / np.float32(params.temperature or 1.0)
    expected = sampling.kept_ids(scaled, params)
    assert sampler.kept_ids(torch.from_numpy(scaled), params).tolist() == expected.tolist()


@given(rows=rows_of_logits(), params=PARAMS)
def test_the_penalised_row_is_the_laws(rows, params):
    vocab = rows.shape[1]
    prompt, output = [1, 1, 49 % vocab], [0, 0, 5 % vocab]
    row = torch.from_numpy(rows[0].copy())
    sampler._penalise_(row, params, prompt, output)
    np.testing.assert_array_equal(row.numpy(), sampling.penalise(rows[0], params, prompt, output))


@given(rows=rows_of_logits(), seed=st.integers(0, 2**40), temperature=st.sampled_from([0.2, 1, 2]))
def test_no_winner_is_ruled_out_by_the_bound_on_the_noise(rows, seed, temperature):
    scaled = torch.from_numpy(rows[0]) / temperature
    left, _ = sampler._contenders(scaled, (seed, 0, 9), Columns(scaled.numel()))
    everything = torch.arange(scaled.numel())
    score = scaled.double() + sampler.gumbel(seed, 0, 9, everything, scaled.numel())
    assert int(score.argmax()) in left.tolist()


def test_the_bound_leaves_little_of_a_large_vocabulary():
    rng = np.random.default_rng(1)
    scaled = torch.from_numpy(rng.normal(0, 4, 50_000).astype(np.float32))
    assert sampler._contenders(scaled, (3, 0, 9), Columns(50_000))[0].numel() < 5_000


@given(rows=rows_of_logits(num_rows=4), params=PARAMS, seed=st.integers(0, 2**40))
def test_rows_are_judged_one_by_one(rows, params, seed):
    tokens, logits = [0, 1, 1, 0, 1, 0], torch.from_numpy(rows)
    spec = spec_of(params, seed, prompt_len=2)
    together = sampler.choose(logits, spec, tokens, 3)
    assert together == [sampler.choose(logits[i : i + 1], spec, tokens, 3 + i)[0] for i in range(4)]


@given(rows=rows_of_logits(num_rows=2), params=PARAMS)
def test_choosing_leaves_the_logits_alone(rows, params):
    logits = torch.from_numpy(rows.copy())
    sampler.choose(logits, spec_of(params, 1, 1), [0, 1, 1], 2)
    np.testing.assert_array_equal(logits.numpy(), rows)


@given(rows=rows_of_logits(), params=PARAMS, seed=st.integers(0, 2**40))
def test_bf16_logits_are_taken_at_their_float32_value(rows, params, seed):
    half = torch.from_numpy(rows).bfloat16()
    spec = spec_of(params, seed, prompt_len=1)
    assert sampler.choose(half, spec, [0, 1], 2) == sampler.choose(half.float(), spec, [0, 1], 2)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("top_k", [0, 1])
def test_ties_of_the_best_logit(temperature, top_k):
    """Plain argmax takes the lowest id; sampling gives each tied id its chance."""
    logits = torch.zeros(1, 300)
    logits[0, 200:] = 5.0
    params = replace(SamplingParams(), temperature=temperature, top_k=top_k)
    won = {sampler.choose(logits, spec_of(params, s, 1), [1, 2], 2)[0] for s in range(40)}
    assert won == {200} if temperature == 0 else len(won & set(range(200, 300))) > 20


@given(rows=rows_of_logits(num_rows=3), params=PARAMS, seed=st.integers(0, 2**40), data=st.data())
def test_the_verdict_is_the_laws(rows, params, seed, data):
    masked = data.draw(masks(rows.shape)) if data.draw(st.booleans()) else [None] * 3
    allowed = torch.from_numpy(masked) if isinstance(masked, np.ndarray) else None
    vocab = rows.shape[1]
    tokens = [t % vocab for t in (1, 7, 7, 49, 1, 0)]
    spec, first = spec_of(params, seed, prompt_len=3), len(tokens) - 2
    logits = torch.from_numpy(rows)
    chosen = sampler.choose(logits, spec, tokens, first, allowed)
    verdicts = sampler.judge(logits, spec, tokens, first, chosen, allowed)
    assert len(verdicts) == 2, "the row behind the last token has nothing to judge"
    for i, verdict in enumerate(verdicts):
        before = tokens[: first + i]
        row = sampling.penalise(rows[i], params, before[:3], before[3:])
        law = sampling.judge(row, params, tokens[first + i], chosen[i], masked[i])
        # The law's probabilities underflow to 0 from e**-745 down, the tensors' logarithms do not.
        told, expected = ([max(x, -700.0) for x in astuple(v)] for v in (verdict, law))
        assert told == pytest.approx(expected, rel=1e-5, abs=1e-9)


@given(rows=rows_of_logits(num_rows=2), num_top=st.sampled_from([0, 1, 2]))
def test_logprobs_are_the_laws_and_untouched_by_sampling(rows, num_top):
    logits, chosen = torch.from_numpy(rows), [0, rows.shape[1] - 1]
    for row, token, told in zip(
        rows, chosen, sampler.token_logprobs(logits, chosen, num_top), strict=True
    ):
        law = sampling.token_logprobs(row, token, num_top)
        assert told.logprob == pytest.approx(law.logprob, abs=1e-6)
        assert [p for _, p in told.top] == pytest.approx([p for _, p in law.top], abs=1e-6)
