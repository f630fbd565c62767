"""Where the next candidates of a route search come from: chance, the best so far, or optuna.

Pure functions of what was judged before, so a search that goes on proposes what an unbroken
one would have.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution

from cluster.trio.routes.candidate import Candidate
from policies.masks import Space, from_params, mutated, random_mask, repaired, to_params

_TRIES = 64
_BEST = 3
"""A local candidate begins at one of so many of the best."""
_SAME_MASK = 0.2
"""Share of the local candidates that change the weights of one of the best, not its mask."""
_INT8 = "int8"
"""The optimiser's name for the weights, beside `policies.masks.to_params`."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate and its value; less is better."""

    candidate: Candidate
    value: float


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be proposed: `sizes`, in units; `int8`: besides the model's own weights. Where it
    is not, no chance is spent on it: the proposals are those of a search that knows no int8."""

    space: Space
    sizes: range
    int8: bool = False


def propose_random(
    allowed: Allowed, tried: Set[Candidate], rng: np.random.Generator
) -> Candidate | None:
    """A candidate not tried yet, its size first; None where none was found."""

    def draw() -> Candidate:
        mask = random_mask(allowed.space, int(rng.choice(allowed.sizes)), rng)
        return Candidate(mask, allowed.int8 and rng.random() < 0.5)

    return _untried(draw, tried)


def propose_local(
    allowed: Allowed, judged: Sequence[Judged], tried: Set[Candidate], rng: np.random.Generator
) -> Candidate | None:
    """One of the best with another mask, or with other weights; not tried yet, None where none
    was found."""
    best = sorted(judged, key=lambda j: j.value)[:_BEST]

    def draw() -> Candidate:
        begin = best[int(rng.integers(len(best)))].candidate
        if allowed.int8 and rng.random() < _SAME_MASK:
            return replace(begin, int8=not begin.int8)
        return replace(begin, mask=mutated(begin.mask, allowed.sizes, rng))

    return _untried(draw, tried)


def propose_bayes(
    allowed: Allowed, judged: Sequence[Judged], tried: Set[Candidate], rng: np.random.Generator
) -> Candidate | None:
    """What a tree of Parzen estimators asks for next, brought to an allowed size.

    The study is built anew from what was judged: optuna's state would not outlive a killed
    search, and is told of candidates that it did not ask for.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = _to_params(Candidate(allowed.space.whole), allowed)
    choices = {name: CategoricalDistribution((False, True)) for name in names}
    sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)), n_startup_trials=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=sampler)
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params=_to_params(j.candidate, allowed),
                    distributions={**choices},
                    value=j.value,
                )
                for j in judged
            ]
        )
        asked = (study.ask({**choices}).params for _ in range(_TRIES))
        return _untried(lambda: _repaired(next(asked), allowed, rng), tried)


def _to_params(candidate: Candidate, allowed: Allowed) -> dict[str, bool]:
    return to_params(candidate.mask) | ({_INT8: candidate.int8} if allowed.int8 else {})


def _repaired(params: Mapping[str, bool], allowed: Allowed, rng: np.random.Generator) -> Candidate:
    units = {name: flag for name, flag in params.items() if name != _INT8}
    mask = repaired(from_params(units), allowed.sizes, rng)
    return Candidate(mask, params.get(_INT8, False))


def _untried(draw: Callable[[], Candidate], tried: Set[Candidate]) -> Candidate | None:
    drawn = (draw() for _ in range(_TRIES))
    return next((candidate for candidate in drawn if candidate not in tried), None)
