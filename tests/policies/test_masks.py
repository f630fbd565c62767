"""Laws of layer masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.masks import (
    Space,
    even_mask,
    from_params,
    from_text,
    greedy_mask,
    mutated,
    neighbours,
    random_mask,
    repaired,
    singles,
    to_params,
    to_text,
)

spaces = st.builds(Space, st.integers(3, 24), st.booleans())
seeds = st.integers(0, 2**32 - 1)


@given(spaces, seeds, st.data())
def test_first_and_last_layer_are_always_kept(space, seed, data):
    size = data.draw(st.integers(0, space.num_units))
    kept = space.kept_layers(random_mask(space, size, np.random.default_rng(seed)))
    assert kept[0] == 0
    assert kept[-1] == space.num_layers - 1
    assert list(kept) == sorted(set(kept))


@given(spaces, seeds, st.data())
def test_a_random_mask_has_the_size_asked_for_and_its_seed_decides(space, seed, data):
    size = data.draw(st.integers(0, space.num_units))
    mask = random_mask(space, size, np.random.default_rng(seed))
    assert sum(mask) == size
    assert mask == random_mask(space, size, np.random.default_rng(seed))


@given(st.integers(3, 40), st.booleans(), st.data())
def test_even_masks_are_whole_layers_of_the_size_asked_for(num_layers, halves, data):
    space = Space(num_layers, halves)
    layers = data.draw(st.integers(2, num_layers))
    mask = even_mask(space, layers)
    kept = space.kept_layers(mask)
    assert len(kept) == layers
    assert sum(mask) == space.units_of(layers)
    gaps = np.diff(kept)
    assert max(gaps) - min(gaps) <= 1
    assert space.skipped(mask, 0) == space.skipped(mask, 1) == ()


@given(spaces, st.data())
def test_greedy_masks_are_nested_and_keep_what_did_most_damage(space, data):
    damages = data.draw(
        st.lists(st.floats(-5, 5), min_size=space.num_units, max_size=space.num_units)
    )
    smaller: tuple[bool, ...] = (False,) * space.num_units
    for size in range(space.num_units + 1):
        mask = greedy_mask(space, size, damages)
        assert sum(mask) == size
        assert all(now or not before for before, now in zip(smaller, mask, strict=True))
        kept = [d for d, flag in zip(damages, mask, strict=True) if flag]
        out = [d for d, flag in zip(damages, mask, strict=True) if not flag]
        assert not kept or not out or min(kept) >= max(out)
        smaller = mask


def test_neighbours_are_all_masks_one_swap_away():
    mask = (True, False, True, False, False)
    found = list(neighbours(mask))
    assert len(found) == len(set(found)) == 2 * 3
    assert all(
        sum(m) == 2 and sum(a != b for a, b in zip(m, mask, strict=True)) == 2 for m in found
    )


@given(spaces, seeds, st.data())
def test_mutations_and_repairs_have_an_allowed_size(space, seed, data):
    rng = np.random.default_rng(seed)
    first = data.draw(st.integers(0, space.num_units))
    sizes = range(first, data.draw(st.integers(first, space.num_units)) + 1)
    mask = random_mask(space, int(rng.choice(sizes)), rng)
    assert sum(mutated(mask, sizes, rng)) in sizes
    anything = random_mask(space, data.draw(st.integers(0, space.num_units)), rng)
    mended = repaired(anything, sizes, rng)
    assert sum(mended) in sizes
    changed = sum(a != b for a, b in zip(anything, mended, strict=True))
    assert changed == abs(sum(anything) - sum(mended))


@given(spaces, seeds, st.data())
def test_params_and_text_bring_the_mask_back(space, seed, data):
    size = data.draw(st.integers(0, space.num_units))
    mask = random_mask(space, size, np.random.default_rng(seed))
    assert from_params(to_params(mask)) == mask
    assert from_text(to_text(mask)) == mask


@pytest.mark.parametrize("halves", [False, True])
def test_each_unit_is_left_out_alone_once(halves):
    space = Space(6, halves)
    masks = singles(space)
    assert len(set(masks)) == space.num_units == 4 * (2 if halves else 1)
    assert all(sum(mask) == space.num_units - 1 for mask in masks)


def test_a_layer_without_both_halves_is_not_kept():
    space = Space(5, halves=True)
    mask = (True, False, False, False, False, True)
    assert space.kept_layers(mask) == (0, 1, 3, 4)
    assert space.skipped(mask, 0) == (3,)
    assert space.skipped(mask, 1) == (1,)
