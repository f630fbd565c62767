"""Which tokens of a block are committed. Exact: by equality with the verifier's own choice.
Lossy, apart and by name: the speculative cascade, a baseline.

Glossary, for a block of n drafted tokens after a committed prefix x:
- block[i]: the token drafted at position |x| + i.
- chosen[i]: g_verifier(x, block[:i]), i = 0 .. n; n + 1 entries, one after every prefix.
- accepted: the longest prefix of the block where block[i] == chosen[i].
- correction: chosen[accepted] when accepted < n; bonus: chosen[n] when accepted == n.
"""

from __future__ import annotations

from collections.abc import Sequence


def accepted_len(block: Sequence[int], chosen: Sequence[int]) -> int:
    """How many tokens of the block equal the verifier's choice, counted from the front."""
    assert len(chosen) == len(block) + 1, (len(block), len(chosen))
    for i, (drafted, wanted) in enumerate(zip(block, chosen, strict=False)):
        if drafted != wanted:
            return i
    return len(block)


def accept_exact(block: Sequence[int], chosen: Sequence[int]) -> tuple[int, ...]:
    """The tokens to commit: the accepted prefix and the verifier's next token.

    Law (DESIGN section 2): each equals g_verifier of what stands before it, so the output
    is the verifier's plain decoding whatever the block was.
    """
    return tuple(chosen[: accepted_len(block, chosen) + 1])


def accept_cascade(
    block: Sequence[int], chosen: Sequence[int], ratios: Sequence[float], alpha: float
) -> tuple[int, ...]:
    """LOSSY. The tokens to commit under the speculative cascade of arXiv 2405.19261 (the
    token-specific rule that asks for full(x) >= (1 - alpha) max full).

    `ratios[i]` is full(block[i]) / max full after block[:i], of full's processed distribution;
    0 <= alpha <= 1. A drafted token stays iff its ratio is at least 1 - alpha, the first that
    fails gives way to full's own choice. alpha = 0 keeps only what ties with full's maximum,
    which above temperature 0 is not the exact rule: it never asks what full chose.
    """
    assert len(chosen) == len(block) + 1, (len(block), len(chosen))
    assert len(ratios) == len(block), (len(block), len(ratios))
    assert 0 <= alpha <= 1, alpha
    kept = 0
    while kept < len(block) and ratios[kept] >= 1 - alpha:
        kept += 1
    return (*block[:kept], chosen[kept])
