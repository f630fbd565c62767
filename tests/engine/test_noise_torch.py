"""Law: torch's noise is the numpy noise, and the quick search for large noise misses none."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actors.engine import noise as torch_noise
from policies import noise
from tests.engine.toys import CPU

SIZES = (2, 50, 5_000, 200_000)
KEYS = st.tuples(
    st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 2**63 - 1, -(2**63)]),
    st.integers(0, 128),
    st.integers(1, 2**20),
)


@given(key=KEYS, size=st.sampled_from(SIZES))
def test_the_integers_are_numpys(key, size):
    words = torch_noise._token_words(size, CPU)
    keys = noise.noise_keys(*key)
    law = noise.uniform_bits(keys, np.arange(size))
    for i, expected in enumerate(law):
        got = torch_noise._word(words, keys[2 * i], keys[2 * i + 1]).numpy()
        np.testing.assert_array_equal(got.view(np.uint32), expected)


@pytest.mark.parametrize("gumbel", [torch_noise.gumbel, torch_noise.device_gumbel])
@given(key=KEYS, size=st.sampled_from(SIZES))
def test_g_is_numpys_up_to_the_rounding_of_logarithms(gumbel, key, size):
    ids = np.arange(0, size, 1 + size // 500)
    got = gumbel(*key, torch.from_numpy(ids), size).numpy()
    law = noise.gumbel(*key, ids)
    assert got.dtype == np.float64
    # The inner logarithm loses relative accuracy near u = 1, as -log(u) nears zero.
    np.testing.assert_allclose(got, law, rtol=2e-15, atol=4e-15)


@given(key=KEYS)
def test_asking_does_not_change_the_noise(key):
    ids = torch.arange(50)
    first = torch_noise.gumbel(*key, ids, 50)
    torch_noise.ids_with_noise_at_least(*key, 50, 0.0, CPU)
    assert torch.equal(torch_noise.gumbel(*key, ids, 50), first)


@given(
    key=KEYS,
    size=st.sampled_from(SIZES[:3]),
    bound=st.floats(-4.0, 12.0) | st.sampled_from([-1e9, -800.0, -700.0, -3.7, 36.7, 37.0]),
)
def test_no_id_with_enough_noise_is_missed_and_few_others_come(key, size, bound):
    found = torch_noise.ids_with_noise_at_least(*key, size, bound, CPU).numpy()
    law = noise.gumbel(*key, np.arange(size))
    assert set(np.flatnonzero(law >= bound)) <= set(found)
    assert (np.diff(found) > 0).all()
    # Three units of the high word, 2**-32 each, of the uniform number.
    slack = np.exp(-np.exp(-law[found])) - math.exp(-math.exp(min(-bound, 700)))
    assert (slack >= -3 * 2.0**-32 - 1e-15).all()


@given(
    key=KEYS,
    size=st.sampled_from(SIZES[:3]),
    least=st.integers(0, 2**32 - 1) | st.sampled_from([0, 2**31 - 1, 2**31, 2**32 - 1]),
    step=st.integers(1, 3),
)
def test_other_devices_find_what_numpy_finds(key, size, least, step):
    keys, among = noise.noise_keys(*key), np.arange(0, size, step)
    found = torch_noise._device_ids(keys, size, least, CPU, torch.from_numpy(among))
    high, _ = noise.uniform_bits(keys, among)
    np.testing.assert_array_equal(found.numpy(), np.flatnonzero(high >= least))


@given(key=KEYS, size=st.sampled_from(SIZES[:3]), data=st.data())
def test_an_id_whose_noise_is_the_bound_is_found(key, size, data):
    law = noise.gumbel(*key, np.arange(size))
    token = data.draw(st.integers(0, size - 1))
    found = torch_noise.ids_with_noise_at_least(*key, size, float(law[token]), CPU)
    assert token in found.tolist()


@pytest.mark.parametrize("bound", [37.01, 1e3, math.inf])
def test_no_noise_is_above_the_largest(bound):
    largest = -math.log(-math.log(1 - 2.0**-53))
    assert largest < bound
    assert torch_noise.ids_with_noise_at_least(1, 0, 1, 5_000, bound, CPU).numel() == 0
