"""Laws of the yardstick: rejection sampling follows full, the coupling costs a little, and
the two must never be mixed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from policies.noise import gumbel
from policies.rejection import (
    coupling_acceptance,
    coupling_cost,
    ratio_test,
    rejection_acceptance,
    rejection_sample,
    resample,
)

VERY_UNLIKELY = 1e-4
DRAFT = np.array([0.4, 0.3, 0.15, 0.1, 0.05, 0.0])
FULL = np.array([0.15, 0.35, 0.0, 0.3, 0.1, 0.1])
IDS = np.array([3, 17, 300, 4096, 30_000, 49_151])
SIZE = 20_000


def normalised(weights) -> np.ndarray:
    weights = np.asarray(weights, float)
    return weights / weights.sum()


@st.composite
def pairs(draw) -> tuple[np.ndarray, np.ndarray]:
    size = draw(st.integers(1, 12))
    weights = st.lists(st.integers(0, 1000), min_size=size, max_size=size).filter(any)
    return normalised(draw(weights)), normalised(draw(weights))


def by_definition(draft, full) -> float:
    """M(draft, full), term by term."""
    total = 0.0
    for v in range(draft.size):
        if draft[v] > 0 and full[v] > 0:
            total += 1 / np.maximum(draft / draft[v], full / full[v]).sum()
    return total


def shared_noise(position: int) -> np.ndarray:
    return gumbel(5, 0, position, IDS)


def coupled(distribution, noise) -> int:
    with np.errstate(divide="ignore"):
        return int(np.argmax(np.log(distribution) + noise))


def p_value(tokens, distribution) -> float:
    counts = np.bincount(tokens, minlength=distribution.size)
    support = distribution > 0
    assert not counts[~support].any()
    return stats.chisquare(counts[support], tokens.size * distribution[support]).pvalue


@pytest.fixture(scope="module")
def judged() -> tuple[np.ndarray, np.ndarray]:
    """Drafted tokens and what rejection sampling makes of them, with independent uniforms."""
    rng = np.random.default_rng(1)
    drafted = rng.choice(DRAFT.size, SIZE, p=DRAFT)
    sampled = [rejection_sample(DRAFT, FULL, int(v), tuple(rng.random(2))) for v in drafted]
    return drafted, np.array(sampled)


def test_rejection_sampling_follows_full(judged):
    assert p_value(judged[1], FULL) > VERY_UNLIKELY


def test_rejection_keeps_one_less_the_total_variation():
    rng = np.random.default_rng(2)
    drafted = rng.choice(DRAFT.size, SIZE, p=DRAFT)
    kept = sum(ratio_test(DRAFT, FULL, int(v), rng.random()) for v in drafted)
    acceptance = rejection_acceptance(DRAFT, FULL)
    assert acceptance == pytest.approx(1 - np.abs(DRAFT - FULL).sum() / 2)
    assert stats.binomtest(kept, SIZE, acceptance).pvalue > VERY_UNLIKELY


def test_shared_noise_agrees_as_often_as_m_says():
    agreed = sum(
        coupled(DRAFT, noise) == coupled(FULL, noise) for noise in map(shared_noise, range(SIZE))
    )
    acceptance = coupling_acceptance(DRAFT, FULL)
    assert stats.binomtest(agreed, SIZE, acceptance).pvalue > VERY_UNLIKELY


def test_shared_noise_follows_full():
    tokens = np.array([coupled(FULL, shared_noise(position)) for position in range(SIZE)])
    assert p_value(tokens, FULL) > VERY_UNLIKELY


def test_shared_noise_with_the_ratio_test_is_biased():
    """The trap: the uniform is fair, but full's coupled choice stands in for the resample."""
    rng = np.random.default_rng(3)
    tokens = []
    for noise in map(shared_noise, range(SIZE)):
        drafted = coupled(DRAFT, noise)
        kept = ratio_test(DRAFT, FULL, drafted, rng.random())
        tokens.append(drafted if kept else coupled(FULL, noise))
    assert p_value(np.array(tokens), FULL) < 1e-12


def test_a_ratio_test_on_the_shared_uniform_is_biased():
    """The same trap by its other door: the test reads the noise that chose the token."""
    rng = np.random.default_rng(4)
    tokens = []
    for noise in map(shared_noise, range(SIZE)):
        drafted = coupled(DRAFT, noise)
        uniforms = (float(np.exp(-np.exp(-noise[drafted]))), rng.random())
        tokens.append(rejection_sample(DRAFT, FULL, drafted, uniforms))
    assert p_value(np.array(tokens), FULL) < 1e-12


@given(pair=pairs())
def test_the_coupling_lies_between_its_bounds(pair):
    kept = rejection_acceptance(*pair)
    acceptance = coupling_acceptance(*pair)
    assert kept / (2 - kept) - 1e-9 <= acceptance <= kept + 1e-9
    assert 0.5 - 1e-9 <= coupling_cost(*pair) <= 1 + 1e-9


@given(pair=pairs())
def test_the_sorted_sum_is_m_by_definition(pair):
    assert coupling_acceptance(*pair) == pytest.approx(by_definition(*pair), abs=1e-9)
    assert coupling_acceptance(*pair) == pytest.approx(coupling_acceptance(*pair[::-1]), abs=1e-9)


@given(pair=pairs(), uniform=st.floats(0, 1, exclude_max=True))
def test_a_resampled_token_is_one_that_full_wants_more(pair, uniform):
    draft, full = pair
    if rejection_acceptance(draft, full) < 1 - 1e-9:
        token = resample(draft, full, uniform)
        assert full[token] > draft[token]


def test_equal_distributions_keep_everything_and_disjoint_ones_nothing():
    assert coupling_cost(FULL, FULL) == pytest.approx(1.0)
    left, right = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert coupling_acceptance(left, right) == 0.0
    assert coupling_cost(left, right) == 1.0
    assert rejection_sample(left, right, 0, (0.0, 0.0)) == 1
    with pytest.raises(AssertionError):
        resample(left, left, 0.5)
