"""Classic rejection sampling with the ratio test, as a yardstick; nothing serves with it.

Leviathan et al. 2023 (arXiv 2211.17192) and Chen et al. 2023 (arXiv 2302.01318), against the
coupling by shared noise that this project uses (Daliri, Musco, Suresh, arXiv 2408.07978;
DESIGN section 2). Trap: the ratio test needs a uniform that is independent of the draft's
token. With the shared noise its output is biased.

Glossary: draft, full: processed distributions of one position, shape (V,), sum 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def ratio_test(draft: F64, full: F64, drafted: int, uniform: float) -> bool:
    """Keep the drafted token? With probability min(1, full / draft); `uniform` is in [0, 1)."""
    return uniform * float(draft[drafted]) < float(full[drafted])


def resample(draft: F64, full: F64, uniform: float) -> int:
    """The token in a rejected one's place: from max(full - draft, 0), normalised.

    `uniform` is in [0, 1) and independent of that of the ratio test.
    """
    below: F64 = np.cumsum(np.maximum(full - draft, 0.0))
    assert below[-1] > 0, "equal distributions reject nothing"
    return int(np.count_nonzero(below <= uniform * below[-1]))


def rejection_sample(draft: F64, full: F64, drafted: int, uniforms: tuple[float, float]) -> int:
    """One token that follows `full` exactly, where `drafted` follows `draft`."""
    if ratio_test(draft, full, drafted, uniforms[0]):
        return drafted
    return resample(draft, full, uniforms[1])


def rejection_acceptance(draft: F64, full: F64) -> float:
    """P(drafted token kept) with the ratio test: 1 - TV = sum_v min(draft, full)."""
    return float(np.minimum(draft, full).sum())


def coupling_acceptance(draft: F64, full: F64) -> float:
    """P(both argmaxes of log probability + shared Gumbel noise agree): M(draft, full).

    M = sum_v 1 / sum_u max(draft_u / draft_v, full_u / full_v). With the tokens in the order of
    draft_u / full_u each inner sum is a tail of draft and a head of full, so V log V steps do.
    Bounds (arXiv 2408.07978): (1 - TV) / (1 + TV) <= M <= 1 - TV.
    """
    # The angle orders as the ratio does and bears zeros.
    order = np.argsort(np.arctan2(draft, full))
    draft, full = draft[order], full[order]
    draft_tail = np.cumsum(draft[::-1])[::-1]
    full_head = np.cumsum(full) - full
    both = (draft > 0) & (full > 0)
    worst = draft_tail[both] / draft[both] + full_head[both] / full[both]
    return float((1 / worst).sum())


def coupling_cost(draft: F64, full: F64) -> float:
    """The coupling's acceptance over rejection sampling's, in (1/2, 1]; 1: it costs nothing."""
    most = rejection_acceptance(draft, full)
    return coupling_acceptance(draft, full) / most if most else 1.0
