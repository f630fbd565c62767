"""Does the machine keep the law of row invariance? Asked of the loaded model at start-up.

Kernels differ between processors and libraries, so this is measured and never assumed; where
it fails, exact mode is exact only up to near-ties of the full model's logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from actors.engine.attention import KEY_MULTIPLE
from actors.engine.seam import Context, Extend
from actors.engine.transformers_engine import TransformersEngine
from policies.vocabulary import SamplingParams, SamplingSpec

_LENGTH = KEY_MULTIPLE + 8
"""Past the first chunk of keys: some kernels keep the law only up to a size."""
_CUTS: tuple[tuple[int, ...], ...] = (
    (_LENGTH,),
    (1, 2, 5, 6, 13, _LENGTH - 2, _LENGTH),
    (KEY_MULTIPLE - 1, KEY_MULTIPLE, KEY_MULTIPLE + 1, _LENGTH),
)


def rows_are_invariant(engine: TransformersEngine, vocab_size: int) -> bool:
    """Whether one text's logits are bitwise the same in one pass, in pieces of several sizes,
    and beside other sessions."""
    tokens = [(i * 7919 + 13) % vocab_size for i in range(_LENGTH)]
    alone = [_in_pieces(engine, tokens, cuts, beside=0) for cuts in _CUTS]
    crowded = [_in_pieces(engine, tokens, cuts, beside=3) for cuts in _CUTS[:2]]
    return all(torch.equal(alone[0], other) for other in alone[1:] + crowded)


def _in_pieces(
    engine: TransformersEngine, tokens: Sequence[int], cuts: Sequence[int], beside: int
) -> torch.Tensor:
    """All rows' logits, (tokens, V), computed in the pieces that end at `cuts`."""
    spec = SamplingSpec(SamplingParams(temperature=0.0), seed=0, choice=0, prompt_len=1)
    contexts = [
        Context(f"invariance-{i}", spec, tokens=[*tokens[i:], *tokens[:i]])
        for i in range(beside + 1)
    ]
    rows: list[torch.Tensor] = []
    start = 0
    for cut in cuts:
        others = [Extend(c, min(cut + 3 * i, _LENGTH), 1) for i, c in enumerate(contexts) if i]
        rows += engine.logits([Extend(contexts[0], cut, cut - start), *others])[0]
        start = cut
    for context in contexts:
        engine.release(context.session_id)
    return torch.stack(rows)
