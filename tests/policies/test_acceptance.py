"""Laws of acceptance: by equality the block decides how far, never what; the cascade is lossy."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.acceptance import accept_cascade, accept_exact, accepted_len

VOCAB = 3
BLOCKS = st.lists(st.integers(0, VOCAB - 1), max_size=8)


def verifier(tokens) -> int:
    return zlib.crc32(bytes(tokens)) % VOCAB


def choices(prefix, block) -> list[int]:
    return [verifier([*prefix, *block[:i]]) for i in range(len(block) + 1)]


@given(prefix=st.lists(st.integers(0, VOCAB - 1), max_size=5), blocks=st.lists(BLOCKS, min_size=1))
def test_any_blocks_give_plain_decoding(prefix, blocks):
    tokens = list(prefix)
    for block in blocks:
        tokens += accept_exact(block, choices(tokens, block))
    plain = list(prefix)
    while len(plain) < len(tokens):
        plain.append(verifier(plain))
    assert tokens == plain


@given(block=BLOCKS)
def test_a_round_commits_one_to_all_and_one_more(block):
    committed = accept_exact(block, choices([], block))
    assert 1 <= len(committed) <= len(block) + 1
    assert committed[:-1] == tuple(block[: len(committed) - 1])


@given(block=BLOCKS, rest=BLOCKS)
def test_nothing_behind_a_rejection_matters(block, rest):
    chosen = choices([], block)
    kept = accepted_len(block, chosen)
    if kept < len(block):
        changed = [*block[: kept + 1], *rest]
        judged = [*chosen[: kept + 1], *[0] * len(rest), 0]
        assert accept_exact(changed, judged) == accept_exact(block, chosen)


@pytest.mark.parametrize(
    ("block", "chosen", "expected"),
    [
        ((), (4,), (4,)),
        ((1, 2), (1, 2, 3), (1, 2, 3)),
        ((1, 2), (1, 9, 3), (1, 9)),
        ((1, 2), (9, 2, 3), (9,)),
    ],
)
def test_a_correction_or_a_bonus_ends_the_round(block, chosen, expected):
    assert accept_exact(block, chosen) == expected


@pytest.mark.parametrize("chosen", [(), (1,), (1, 2, 3, 4)])
def test_a_verdict_of_the_wrong_length_is_a_bug(chosen):
    with pytest.raises(AssertionError):
        accepted_len((1, 2), chosen)


@given(ratios=st.lists(st.floats(0, 1), max_size=6), alpha=st.floats(0, 1))
def test_a_cascade_keeps_the_prefix_that_full_finds_likely_enough(ratios, alpha):
    block, chosen = list(range(10, 10 + len(ratios))), list(range(len(ratios) + 1))
    *kept, end = accept_cascade(block, chosen, ratios, alpha)
    assert kept == block[: len(kept)]
    assert end == chosen[len(kept)]
    assert all(ratio >= 1 - alpha for ratio in ratios[: len(kept)])
    assert len(kept) == len(block) or ratios[len(kept)] < 1 - alpha


@pytest.mark.parametrize(
    ("ratios", "alpha", "expected"),
    [
        ((1.0, 1.0), 0.0, (1, 2, 7)),
        ((1.0, 0.999), 0.0, (1, 8)),
        ((0.5, 0.49), 0.5, (1, 8)),
        ((0.0, 0.0), 1.0, (1, 2, 7)),
        ((0.2, 1.0), 0.5, (9,)),
    ],
)
def test_a_cascade_by_example(ratios, alpha, expected):
    assert accept_cascade((1, 2), (9, 8, 7), ratios, alpha) == expected


@given(ratios=st.lists(st.floats(0, 1), max_size=6), alphas=st.tuples(*[st.floats(0, 1)] * 2))
def test_a_larger_alpha_keeps_no_less(ratios, alphas):
    block, chosen = [1] * len(ratios), [0] * (len(ratios) + 1)
    strict, loose = (accept_cascade(block, chosen, ratios, alpha) for alpha in sorted(alphas))
    assert len(strict) <= len(loose)


@pytest.mark.parametrize(
    ("chosen", "ratios", "alpha"), [((1,), (1.0,), 0.3), ((1, 2), (), 0.3), ((1, 2), (1.0,), 1.1)]
)
def test_a_cascade_without_its_figures_is_a_bug(chosen, ratios, alpha):
    with pytest.raises(AssertionError):
        accept_cascade((1,), chosen, ratios, alpha)
