"""The route search: greedy warm start, then random, local and Bayesian candidates in rounds.

After DIMR of arXiv 2606.12243 (random candidates, every theta-th one Bayesian), with a warm
start and steps around the best added. With int8 allowed each mask stands twice, with either
weights. It knows masks and values; neither a model nor a file: `judge` may answer from memory,
so going on is searching again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.trio.routes.candidate import Candidate
from cluster.trio.routes.proposals import (
    Allowed,
    Judged,
    propose_bayes,
    propose_local,
    propose_random,
)
from policies.masks import Mask, Space, even_mask, greedy_mask, singles, without

Proposed = tuple[str, Candidate]
"""What proposed a candidate, and the candidate."""
Valued = Callable[[Sequence[Proposed]], list[float]]
"""Values of candidates that may be judged side by side; less is better."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """`layers`: sizes allowed, in layers, both ends included. `candidates`: how many after the
    warm start. `theta`: every theta-th of them is Bayesian; `local_frac` of the others begin at
    the best so far, which the paper's search does not have (0). `lookahead`: units that each step
    of the greedy start tries; 0 trusts the damage that each does alone. `int8`: a candidate's
    weights may be int8."""

    layers: range
    candidates: int
    theta: int = 4
    local_frac: float = 0.5
    lookahead: int = 3
    seed: int = 0
    int8: bool = False


class Search:
    """One search; `judged` are all candidates of an allowed size so far."""

    def __init__(self, space: Space, settings: SearchSettings, judge: Valued) -> None:
        first, last = (space.units_of(n) for n in (settings.layers[0], settings.layers[-1]))
        self._space, self._settings, self._judge = space, settings, judge
        self._allowed = Allowed(space, range(first, last + 1), settings.int8)
        self._tried: set[Candidate] = set()
        self.judged: list[Judged] = []

    @property
    def best(self) -> Judged:
        """The least value; of equals the first."""
        return min(self.judged, key=lambda j: j.value)

    def run(self) -> Judged:
        """Search to the end."""
        self._warm_start()
        for first in range(0, self._settings.candidates, self._settings.theta):
            self._round(first)
        return self.best

    def _warm_start(self) -> None:
        space, settings = self._space, self._settings
        sizes = self._allowed.sizes
        damages = self._try_masks("single", singles(space))
        self._try_masks("greedy", [greedy_mask(space, size, damages) for size in sizes])
        self._try_masks("even", [even_mask(space, layers) for layers in settings.layers])
        mildest = np.argsort(np.asarray(damages), kind="stable").tolist()
        mask = space.whole
        while settings.lookahead and sum(mask) > sizes[0]:
            units = [unit for unit in mildest if mask[unit]][: settings.lookahead]
            masks = [without(mask, unit) for unit in units]
            mask = masks[int(np.argmin(self._try_masks("rescored", masks)))]
        if settings.int8:
            self._try([("twin", replace(c, int8=True)) for c in self._best_of_sizes()])

    def _best_of_sizes(self) -> list[Candidate]:
        falling = sorted(self.judged, key=lambda j: j.value, reverse=True)
        return list({j.candidate.size: j.candidate for j in falling}.values())

    def _round(self, first: int) -> None:
        """Candidates that know the results of the rounds before and are judged side by side."""
        settings = self._settings
        proposed: list[Proposed] = []
        for index in range(first, min(first + settings.theta, settings.candidates)):
            rng = np.random.default_rng([settings.seed, index])
            tried = self._tried | {candidate for _, candidate in proposed}
            kind, candidate = self._propose(index, tried, rng)
            if candidate is not None:
                proposed.append((kind, candidate))
        self._try(proposed)

    def _propose(
        self, index: int, tried: set[Candidate], rng: np.random.Generator
    ) -> tuple[str, Candidate | None]:
        allowed = self._allowed
        if index % self._settings.theta == self._settings.theta - 1:
            return "bayes", propose_bayes(allowed, self.judged, tried, rng)
        if rng.random() < self._settings.local_frac:
            return "local", propose_local(allowed, self.judged, tried, rng)
        return "random", propose_random(allowed, tried, rng)

    def _try_masks(self, kind: str, masks: Sequence[Mask]) -> list[float]:
        return self._try([(kind, Candidate(mask)) for mask in masks])

    def _try(self, proposed: Sequence[Proposed]) -> list[float]:
        values = self._judge(proposed)
        for (_, candidate), value in zip(proposed, values, strict=True):
            if candidate not in self._tried and candidate.size in self._allowed.sizes:
                self.judged.append(Judged(candidate, value))
            self._tried.add(candidate)
        return values
