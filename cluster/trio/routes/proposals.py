"""Where the next candidates of a route search come from: chance, the best so far, or optuna.

Pure functions of what was judged before, so a search that goes on proposes what an unbroken
one would have.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution

from policies.masks import Mask, Space, from_params, mutated, random_mask, repaired, to_params

_TRIES = 64
_BEST = 3
"""A local candidate begins at one of so many of the best."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate and its value; less is better."""

    mask: Mask
    value: float


def propose_random(
    space: Space, sizes: range, tried: Set[Mask], rng: np.random.Generator
) -> Mask | None:
    """A mask not tried yet, its size first; None where none was found."""
    return _untried(lambda: random_mask(space, int(rng.choice(sizes)), rng), tried)


def propose_local(
    judged: Sequence[Judged], sizes: range, tried: Set[Mask], rng: np.random.Generator
) -> Mask | None:
    """A mutation of one of the best, not tried yet; None where none was found."""
    best = sorted(judged, key=lambda j: j.value)[:_BEST]
    return _untried(lambda: mutated(best[int(rng.integers(len(best)))].mask, sizes, rng), tried)


def propose_bayes(
    space: Space,
    judged: Sequence[Judged],
    sizes: range,
    tried: Set[Mask],
    rng: np.random.Generator,
) -> Mask | None:
    """What a tree of Parzen estimators asks for next, brought to an allowed size.

    The study is built anew from what was judged: optuna's state would not outlive a killed
    search, and is told of candidates that it did not ask for.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    choices = {name: CategoricalDistribution((False, True)) for name in to_params(space.whole)}
    sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)), n_startup_trials=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=sampler)
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params=to_params(j.mask), distributions={**choices}, value=j.value
                )
                for j in judged
            ]
        )
        asked = (study.ask({**choices}).params for _ in range(_TRIES))
        return _untried(lambda: repaired(from_params(next(asked)), sizes, rng), tried)


def _untried(draw: Callable[[], Mask], tried: Set[Mask]) -> Mask | None:
    masks = (draw() for _ in range(_TRIES))
    return next((mask for mask in masks if mask not in tried), None)
