"""Anytime-valid evidence about a rate of failures, from (rows, failures) alone.

A mixture of bets (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021, the sub-Bernoulli
mixture; Waudby-Smith and Ramdas 2024, betting), made valid for all times by Ville's
inequality. It knows nothing of tokens, gates or levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]

_BISECTIONS = 40
"""Halvings of the interval [0, 1]: a bound is wide by at most 1e-12."""


@dataclass(frozen=True, slots=True)
class Bets:
    """Prior weights (sum 1) of the odds ratios bet on; log values, shape (bets,).

    A bet on the odds ratio c says: the rate's odds are c times those of the rate in doubt.
    """

    log_odds: F64
    log_weight: F64


def _bets(odds: list[float], weights: list[float]) -> Bets:
    return Bets(np.log(odds), np.log(np.asarray(weights) / sum(weights)))


FEWER = _bets([1e-9, 0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9], [10.5, 1, 1, 1, 1, 1, 1, 1])
"""Bets against a rate that is too high. Three fifths lie on next to no failures at all,
which is what a good slim shows and what the fixed-sample figures presume."""
MORE = _bets([1.25, 1.5, 2, 4, 8, 16, 32, 64], [1] * 8)
"""Bets against a rate that is too low."""


def log_wealth(rows: ArrayLike, failures: ArrayLike, rate: ArrayLike, bets: Bets) -> F64:
    """Log evidence against `rate` after `failures` in `rows`; the arguments broadcast.

    A bet on the odds ratio c grows by c^d / (1 - rate + c rate) with each row d in {0, 1}: in
    the mean by 1 if P(d = 1 | past) is `rate`. So P(wealth ever reaches 1/delta) <= delta.
    log(1 - p + c p) is concave in p, so with conditional rates p_t that move the same holds
    for the running mean of p_1 .. p_n (Jensen): no constant rate is presumed.
    """
    rows, failures = np.asarray(rows)[..., None], np.asarray(failures)[..., None]
    cost = np.log1p(np.asarray(rate)[..., None] * np.expm1(bets.log_odds))
    terms = bets.log_weight + failures * bets.log_odds - rows * cost
    most = terms.max(axis=-1, keepdims=True)
    return most[..., 0] + np.log(np.exp(terms - most).sum(axis=-1))


def refuted(rows: int, failures: int, rate: float, bets: Bets, confidence: float) -> bool:
    """True where the rows refute `rate` at `confidence`: with FEWER it is above the upper
    bound, with MORE below the lower one."""
    return float(log_wealth(rows, failures, rate, bets)) >= -math.log1p(-confidence)


def upper_bound(rows: int, failures: int, confidence: float) -> float:
    """Upper bound on the rate, valid at all times at once with probability `confidence`.

    What is bounded after n rows is the running mean of P(d_t = 1 | rows before t), t <= n:
    the rows may depend on each other, as those of one session's span do, and the rate may
    drift. What it presumes: whether a row is in the sample does not depend on its outcome.
    The figure is the latest one, not the least so far, which would need a constant rate.
    It rises with `failures`. With none, 3,349 rows give 0.1 % and 334 give 1 % at 0.95; a
    sample of a size fixed beforehand needs 2,995 and 299. No rows: 1.
    """
    low, high = failures / rows if rows else 1.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if middle < 1 and refuted(rows, failures, middle, FEWER, confidence):
            high = middle
        else:
            low = middle
    return high
