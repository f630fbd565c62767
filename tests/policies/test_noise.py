"""Laws of the shared noise: uniform, independent, never infinite, and never another law."""

import functools

import numpy as np
import pytest
from scipy import stats

from policies.noise import gumbel, lowbias32, noise_keys, uniform_bits

VERY_UNLIKELY = 1e-4
"""Seeds are fixed: a law that holds keeps passing, a broken one is far below this."""
IDS = np.array([0, 1, 2, 49151, 2**20 + 7])


def uniforms(seed: int, choice: int, position: int, ids) -> np.ndarray:
    high, low = uniform_bits(noise_keys(seed, choice, position), np.asarray(ids, np.int64))
    return ((high.astype(np.uint64) << np.uint64(21)) | (low >> np.uint32(11))) * 2.0**-53


@functools.cache
def over_ids(index: int, size: int) -> np.ndarray:
    return uniforms(7, 0, index, np.arange(size))


@functools.cache
def over_positions(index: int, size: int) -> np.ndarray:
    return np.array([uniforms(7, 0, p, [index])[0] for p in range(size)])


@functools.cache
def over_choices(index: int, size: int) -> np.ndarray:
    return np.array([uniforms(7, c, 11, [index])[0] for c in range(size)])


@functools.cache
def over_seeds(index: int, size: int) -> np.ndarray:
    return np.array([uniforms(s, 0, 11, [index])[0] for s in range(size)])


AXES = pytest.mark.parametrize("axis", [over_ids, over_positions, over_choices, over_seeds])


@pytest.mark.parametrize(
    ("key", "high", "low"),
    [
        (
            (0, 0, 0),
            [955271729, 38557858, 618106672, 1693854751, 1766724300],
            [1076566090, 308742365, 796658389, 2983778403, 1988309070],
        ),
        (
            (1, 0, 5),
            [1140496936, 1126817120, 1051631069, 3695597803, 4084633855],
            [3953244746, 2584252526, 107761817, 328042570, 1236336495],
        ),
        (
            (-1, 0, 5),
            [2643494038, 3149903544, 1726893922, 2209149295, 3271353060],
            [128900286, 180031572, 796483772, 2617471796, 1493200440],
        ),
        (
            (2**63, 3, 4096),
            [728839096, 1685288227, 824686721, 1130045360, 2736247432],
            [2461214152, 1117913333, 2665873358, 1924985319, 2339440654],
        ),
        (
            (123456789012345, 2, 17),
            [548618722, 3526483443, 2087455392, 3862499402, 727643955],
            [2993368689, 1901043808, 1185224143, 4076715756, 2056025628],
        ),
    ],
)
def test_the_integers_never_change(key, high, low):
    got = uniform_bits(noise_keys(*key), IDS)
    assert [word.tolist() for word in got] == [high, low]


def test_g_is_the_double_logarithm_of_those_integers():
    expected = -np.log(-np.log(uniforms(1, 0, 5, IDS)))
    np.testing.assert_array_equal(gumbel(1, 0, 5, IDS), expected)
    np.testing.assert_allclose(gumbel(1, 0, 5, IDS)[:2], [-0.2821517061, -0.2912110807])


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
def test_a_seed_counts_modulo_two_to_the_64(seed):
    np.testing.assert_array_equal(gumbel(seed, 0, 3, IDS), gumbel(seed + 2**64, 0, 3, IDS))


@pytest.mark.parametrize("bit", [0, 31, 32, 62, 63])
def test_every_bit_of_the_seed_counts(bit):
    assert not np.any(gumbel(0, 0, 3, IDS) == gumbel(1 << bit, 0, 3, IDS))


def test_the_hash_loses_no_id():
    assert np.unique(lowbias32(np.arange(1 << 18, dtype=np.uint32))).size == 1 << 18


@AXES
def test_noise_is_uniform_along_every_axis(axis):
    values = axis(5, 20_000)
    assert stats.kstest(values, "uniform").pvalue > VERY_UNLIKELY
    counts = np.histogram(values, bins=256, range=(0, 1))[0]
    assert stats.chisquare(counts).pvalue > VERY_UNLIKELY


@pytest.mark.parametrize("bit", range(0, 53, 4))
def test_every_bit_of_u_is_fair(bit):
    bits = (over_ids(3, 50_000) * 2.0**53).astype(np.uint64)
    ones = int(((bits >> np.uint64(bit)) & np.uint64(1)).sum())
    assert stats.binomtest(ones, bits.size).pvalue > VERY_UNLIKELY


@AXES
@pytest.mark.parametrize("lag", [1, 2, 3, 64, 1024])
def test_neighbours_on_an_axis_are_independent(axis, lag):
    values = axis(5, 20_000)
    assert stats.pearsonr(values[:-lag], values[lag:]).pvalue > VERY_UNLIKELY
    pairs = np.histogram2d(values[:-lag], values[lag:], bins=16, range=[[0, 1]] * 2)[0]
    # Pairs overlap, which the chi-square test of a 2-D histogram bears well.
    assert stats.chisquare(pairs.ravel()).pvalue > VERY_UNLIKELY


@AXES
def test_whole_rows_of_noise_are_uncorrelated(axis):
    rows = np.array([axis(index, 4000) for index in range(12)])
    off_diagonal = np.corrcoef(rows)[np.triu_indices(12, 1)]
    # Standard deviation 1 / sqrt(4000) each: the sum of squares is chi-square.
    assert stats.chi2.sf(4000 * (off_diagonal**2).sum(), off_diagonal.size) > VERY_UNLIKELY


def test_differences_of_two_positions_are_as_of_independent_noise():
    difference = (over_ids(100, 50_000) - over_ids(101, 50_000)) % 1.0
    assert stats.kstest(difference, "uniform").pvalue > VERY_UNLIKELY


@pytest.mark.parametrize("words", [0, 0xFFFFFFFF])
def test_g_is_finite_at_both_ends(monkeypatch, words):
    end = np.full(3, words, np.uint32)
    monkeypatch.setattr("policies.noise.uniform_bits", lambda keys, ids: (end, end))
    assert np.isfinite(gumbel(0, 0, 0, IDS[:3])).all()


def test_the_argmax_over_logits_and_noise_samples_softmax():
    logits = np.array([2.0, 1.0, 0.0, -1.0, 1.5, 0.5, -3.0, 0.0])
    ids = np.array([5, 17, 300, 301, 4096, 30000, 49151, 7])
    size = 20_000
    winners = [int(np.argmax(logits + gumbel(99, 1, p, ids))) for p in range(size)]
    expected = size * np.exp(logits) / np.exp(logits).sum()
    counts = np.bincount(winners, minlength=ids.size)
    assert stats.chisquare(counts, expected).pvalue > VERY_UNLIKELY
