"""The route search: greedy warm start, then random, local and Bayesian candidates in rounds.

After DIMR of arXiv 2606.12243 (random candidates, every theta-th one Bayesian), with a warm
start and steps around the best added. It knows masks and values; neither a model nor a file:
`judge` may answer from memory, so going on is searching again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.trio.routes.proposals import Judged, propose_bayes, propose_local, propose_random
from policies.masks import Mask, Space, even_mask, greedy_mask, singles, without

Proposed = tuple[str, Mask]
"""What proposed a mask, and the mask."""
JudgeMasks = Callable[[Sequence[Proposed]], list[float]]
"""Values of masks that may be judged side by side; less is better."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """`layers`: sizes allowed, in layers, both ends included. `candidates`: how many after the
    warm start. `theta`: every theta-th of them is Bayesian; `local_frac` of the others begin at
    the best so far, which the paper's search does not have (0). `lookahead`: units that each step
    of the greedy start tries; 0 trusts the damage that each does alone."""

    layers: range
    candidates: int
    theta: int = 4
    local_frac: float = 0.5
    lookahead: int = 3
    seed: int = 0


class Search:
    """One search; `judged` are all candidates of an allowed size so far."""

    def __init__(self, space: Space, settings: SearchSettings, judge: JudgeMasks) -> None:
        first, last = (space.units_of(n) for n in (settings.layers[0], settings.layers[-1]))
        self._space, self._settings, self._judge = space, settings, judge
        self._sizes = range(first, last + 1)
        self._tried: set[Mask] = set()
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
        damages = self._try([("single", mask) for mask in singles(space)])
        self._try([("greedy", greedy_mask(space, size, damages)) for size in self._sizes])
        self._try([("even", even_mask(space, layers)) for layers in settings.layers])
        mildest = np.argsort(np.asarray(damages), kind="stable").tolist()
        mask = space.whole
        while settings.lookahead and sum(mask) > self._sizes[0]:
            units = [unit for unit in mildest if mask[unit]][: settings.lookahead]
            masks = [without(mask, unit) for unit in units]
            mask = masks[int(np.argmin(self._try([("rescored", m) for m in masks])))]

    def _round(self, first: int) -> None:
        """Candidates that know the results of the rounds before and are judged side by side."""
        settings = self._settings
        proposed: list[Proposed] = []
        for index in range(first, min(first + settings.theta, settings.candidates)):
            rng = np.random.default_rng([settings.seed, index])
            tried = self._tried | {mask for _, mask in proposed}
            kind, mask = self._propose(index, tried, rng)
            if mask is not None:
                proposed.append((kind, mask))
        self._try(proposed)

    def _propose(
        self, index: int, tried: set[Mask], rng: np.random.Generator
    ) -> tuple[str, Mask | None]:
        space, sizes = self._space, self._sizes
        if index % self._settings.theta == self._settings.theta - 1:
            return "bayes", propose_bayes(space, self.judged, sizes, tried, rng)
        if rng.random() < self._settings.local_frac:
            return "local", propose_local(self.judged, sizes, tried, rng)
        return "random", propose_random(space, sizes, tried, rng)

    def _try(self, proposed: Sequence[Proposed]) -> list[float]:
        values = self._judge(proposed)
        for (_, mask), value in zip(proposed, values, strict=True):
            if mask not in self._tried and sum(mask) in self._sizes:
                self.judged.append(Judged(mask, value))
            self._tried.add(mask)
        return values
