"""Laws of one token's distribution, and that `choose` draws from it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from policies.sampling import choose, kept_ids, penalise, processed_distribution
from policies.vocabulary import SamplingParams, SamplingSpec

VERY_UNLIKELY = 1e-4
# Multiples of 1/8 tie often, as bf16 logits do.
LOGITS = st.lists(st.integers(-60, 60), min_size=2, max_size=40).map(
    lambda eighths: np.array(eighths, np.float32) / 8
)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.25, 0.7, 1.0, 1.6]),
    top_k=st.integers(0, 45),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.1, 1e-6]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
)
NEUTRAL = SamplingParams()


def softmax(logits: np.ndarray) -> np.ndarray:
    weight = np.exp(logits.astype(np.float64) - logits.max())
    return weight / weight.sum()


@given(logits=LOGITS, params=PARAMS)
def test_it_is_a_distribution_on_the_kept_ids(logits, params):
    law = processed_distribution(logits, params)
    kept = kept_ids(logits / np.float32(params.temperature), params)
    assert law.sum() == pytest.approx(1.0)
    assert np.flatnonzero(law).tolist() == kept.tolist()


@given(logits=LOGITS, params=PARAMS)
def test_the_best_id_is_always_kept(logits, params):
    law = processed_distribution(logits, params)
    assert law[np.argmax(logits)] == law.max() > 0


@given(logits=LOGITS, params=PARAMS)
def test_no_dropped_id_is_as_likely_as_a_kept_one(logits, params):
    law = processed_distribution(logits, params)
    assert logits[law == 0].max(initial=-np.inf) < logits[law > 0].min()


@given(logits=LOGITS, params=PARAMS)
def test_kept_ids_keep_their_proportions(logits, params):
    law = processed_distribution(logits, params)
    plain = softmax(logits / params.temperature)
    kept = law > 0
    np.testing.assert_allclose(law[kept] / law.max(), plain[kept] / plain.max(), rtol=1e-5)


@given(logits=LOGITS, k=st.integers(1, 45))
def test_top_k_keeps_k_and_ties_of_the_last(logits, k):
    law = processed_distribution(logits, replace(NEUTRAL, top_k=k))
    last = np.sort(logits)[::-1][min(k, logits.size) - 1]
    assert np.array_equal(law > 0, logits >= last)


@given(logits=LOGITS, p=st.sampled_from([0.1, 0.5, 0.9]))
def test_top_p_keeps_the_fewest_that_reach_the_mass(logits, p):
    law = processed_distribution(logits, replace(NEUTRAL, top_p=p))
    plain = softmax(logits)
    kept = law > 0
    assert plain[kept].sum() >= p - 1e-9
    lowest = kept & (logits == logits[kept].min())
    assert plain[kept & ~lowest].sum() < p + 1e-9


@given(logits=LOGITS, p=st.sampled_from([0.05, 0.3, 1.0]))
def test_min_p_is_a_share_of_the_best(logits, p):
    plain = softmax(logits)
    shares = plain / plain.max()
    assume(np.abs(shares - p)[logits < logits.max()].min(initial=1.0) > 1e-6)
    law = processed_distribution(logits, replace(NEUTRAL, min_p=p))
    assert np.array_equal(law > 0, (shares >= p) | (logits == logits.max()))


@given(logits=LOGITS, extra=st.integers(0, 5))
def test_top_k_from_the_size_of_the_vocabulary_on_is_off(logits, extra):
    params = replace(NEUTRAL, top_k=logits.size + extra)
    assert np.array_equal(
        processed_distribution(logits, params), processed_distribution(logits, NEUTRAL)
    )


def test_top_p_counts_the_mass_that_top_k_left():
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    # Of all ids 0.6 of the mass takes two; of the two that top-k leaves, 0.57 is the first.
    law = processed_distribution(logits, SamplingParams(top_k=2, top_p=0.56))
    assert np.flatnonzero(law).tolist() == [0]
    law = processed_distribution(logits, SamplingParams(top_p=0.56))
    assert np.flatnonzero(law).tolist() == [0, 1]


def test_the_filters_see_the_temperature():
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    cold = processed_distribution(logits, SamplingParams(temperature=0.1, top_p=0.9))
    warm = processed_distribution(logits, SamplingParams(temperature=10.0, top_p=0.9))
    assert (np.count_nonzero(cold), np.count_nonzero(warm)) == (1, 3)


def test_the_bias_comes_after_the_penalties_and_before_the_filters():
    logits = np.array([4.0, 1.0, 0.0], np.float32)
    params = SamplingParams(top_k=1, repetition_penalty=2.0, logit_bias=((2, 2.5), (2, 0.5)))
    row = penalise(logits, params, prompt=[0], output=[])
    np.testing.assert_array_equal(row, np.array([2.0, 1.0, 3.0], np.float32))
    assert choose(logits, SamplingSpec(params, seed=1, choice=0, prompt_len=1), [0]) == 2


def test_penalties_count_prompt_and_output_apart():
    logits = np.array([2.0, -2.0, 2.0, 2.0], np.float32)
    params = SamplingParams(
        repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25, logit_bias=()
    )
    row = penalise(logits, params, prompt=[0, 0, 1], output=[2, 2, 2])
    # Prompt: divided or multiplied once. Output: and less 3 x 0.25 and 0.5.
    np.testing.assert_array_equal(row, np.array([1.0, -4.0, 1.0 - 1.25, 2.0], np.float32))


def test_a_penalised_row_leaves_the_logits_alone():
    logits = np.array([1.0, 2.0], np.float32)
    penalise(logits, SamplingParams(presence_penalty=1.0), [], [1])
    assert logits.tolist() == [1.0, 2.0]


@given(
    logits=LOGITS,
    top_k=st.integers(0, 3),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_temperature_zero_is_argmax_of_the_lowest_id_whatever_the_seed(logits, top_k, seed):
    params = SamplingParams(temperature=0.0, top_k=top_k)
    best = int(np.flatnonzero(logits == logits.max())[0])
    assert choose(logits, SamplingSpec(params, seed, choice=0, prompt_len=1), [0]) == best
    assert processed_distribution(logits, params)[best] == 1.0


@given(logits=LOGITS, params=PARAMS, data=st.data())
def test_a_forbidden_id_counts_in_no_rule(logits, params, data):
    """The law is that of a vocabulary of the allowed ids alone."""
    size = logits.size
    flags = data.draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    allowed = np.array(flags)
    law = processed_distribution(logits, params, allowed)
    small = logits[allowed]
    top_k = params.top_k if params.top_k < small.size else 0
    alone = processed_distribution(small, replace(params, top_k=top_k))
    np.testing.assert_array_equal(law[allowed], alone)
    assert not law[~allowed].any()
    for seed in range(5):
        spec = SamplingSpec(params, seed, choice=0, prompt_len=1)
        assert law[choose(logits, spec, [0], allowed)] > 0


@given(logits=LOGITS, params=PARAMS, seed=st.integers(0, 2**32))
def test_only_kept_ids_are_chosen(logits, params, seed):
    token = choose(logits, SamplingSpec(params, seed, choice=2, prompt_len=1), [0, 1])
    assert processed_distribution(logits, params)[token] > 0


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.6),
        SamplingParams(temperature=1.4, top_k=5),
        SamplingParams(top_p=0.8),
        SamplingParams(min_p=0.1, top_p=0.9),
        SamplingParams(
            repetition_penalty=1.3, presence_penalty=0.4, logit_bias=((3, 1.0), (7, -2.0))
        ),
    ],
    ids=str,
)
def test_choose_draws_from_the_processed_distribution(params):
    logits = np.random.default_rng(4).normal(0, 1.5, 12).astype(np.float32)
    tokens = [1, 2, 3, 4]
    size = 8_000
    counts = np.zeros(logits.size)
    for seed in range(size):
        counts[choose(logits, SamplingSpec(params, seed, choice=0, prompt_len=2), tokens)] += 1
    law = processed_distribution(penalise(logits, params, tokens[:2], tokens[2:]), params)
    assert counts[law == 0].sum() == 0
    kept = law > 0
    assert stats.chisquare(counts[kept], size * law[kept]).pvalue > VERY_UNLIKELY
