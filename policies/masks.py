"""Layer masks of a slim verifier: which parts of a model's layers it keeps.

A mask has one flag a unit; a unit is a whole inner layer, or half of one (attention or MLP).
The first and the last layer are always kept and have no unit (arXiv 2606.12243, route search).
It knows numbers of layers; no model, and not how good a mask is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Mask = tuple[bool, ...]
"""Kept or not, unit by unit; with halves a layer's attention comes before its MLP."""


@dataclass(frozen=True, slots=True)
class Space:
    """All masks of a model of `num_layers` layers; `halves` tells attention and MLP apart."""

    num_layers: int
    halves: bool = False

    def __post_init__(self) -> None:
        assert self.num_layers >= 3, self.num_layers

    @property
    def per_layer(self) -> int:
        """Units of an inner layer."""
        return 2 if self.halves else 1

    @property
    def num_units(self) -> int:
        """Flags of a mask."""
        return (self.num_layers - 2) * self.per_layer

    @property
    def whole(self) -> Mask:
        """The mask that keeps everything."""
        return (True,) * self.num_units

    def units_of(self, layers: int) -> int:
        """Kept units of a mask that is worth so many layers, the two ends included."""
        assert 2 <= layers <= self.num_layers, layers
        return (layers - 2) * self.per_layer

    def kept_layers(self, mask: Mask) -> tuple[int, ...]:
        """Layers of which anything is kept, ascending; always the first and the last."""
        inner = [i for i in range(1, self.num_layers - 1) if any(self._flags(mask, i))]
        return (0, *inner, self.num_layers - 1)

    def skipped(self, mask: Mask, half: int) -> tuple[int, ...]:
        """Kept layers whose attention (`half` 0) or MLP (1) is left out."""
        inner = self.kept_layers(mask)[1:-1]
        return tuple(i for i in inner if not self._flags(mask, i)[half]) if self.halves else ()

    def _flags(self, mask: Mask, layer: int) -> Mask:
        assert len(mask) == self.num_units, len(mask)
        return mask[(layer - 1) * self.per_layer :][: self.per_layer]


def without(mask: Mask, unit: int) -> Mask:
    """The mask that leaves out one unit more."""
    assert mask[unit]
    return (*mask[:unit], False, *mask[unit + 1 :])


def singles(space: Space) -> list[Mask]:
    """Each unit left out alone."""
    return [without(space.whole, unit) for unit in range(space.num_units)]


def random_mask(space: Space, size: int, rng: np.random.Generator) -> Mask:
    """A mask of `size` units, all equally likely."""
    return _of(space, rng.permutation(space.num_units)[:size])


def even_mask(space: Space, layers: int) -> Mask:
    """Whole layers, `layers` with both ends, as evenly spaced as whole numbers go."""
    kept = {round(float(at)) for at in np.linspace(0, space.num_layers - 1, layers)}
    inner = range(1, space.num_layers - 1)
    return tuple(i in kept for i in inner for _ in range(space.per_layer))


def greedy_mask(space: Space, size: int, damages: Sequence[float]) -> Mask:
    """Keeps the `size` units that did most damage when left out alone; of equals the first."""
    assert len(damages) == space.num_units, len(damages)
    return _of(space, np.argsort(-np.asarray(damages), kind="stable")[:size])


def neighbours(mask: Mask) -> Iterator[Mask]:
    """Each mask in which one kept unit and one that is left out have changed places."""
    for kept in (unit for unit, flag in enumerate(mask) if flag):
        for out in (unit for unit, flag in enumerate(mask) if not flag):
            yield _swapped(mask, kept, out)


def mutated(mask: Mask, sizes: range, rng: np.random.Generator) -> Mask:
    """One or two swaps; or one unit more or less where `sizes` allows that."""
    steps = [s for s in (-1, 1) if sum(mask) + s in sizes]
    if steps and rng.random() < 0.5:
        goal = sum(mask) + int(rng.choice(steps))
        return repaired(mask, range(goal, goal + 1), rng)
    for _ in range(int(rng.integers(1, 3))):
        kept = [unit for unit, flag in enumerate(mask) if flag]
        out = [unit for unit, flag in enumerate(mask) if not flag]
        if kept and out:
            mask = _swapped(mask, int(rng.choice(kept)), int(rng.choice(out)))
    return mask


def repaired(mask: Mask, sizes: range, rng: np.random.Generator) -> Mask:
    """The mask with random units added or left out until its size is one of `sizes`."""
    goal = min(max(sum(mask), sizes[0]), sizes[-1])
    flags, change = np.array(mask), goal - sum(mask)
    units = rng.permutation(np.flatnonzero(flags != (change > 0)))[: abs(change)]
    flags[units] = change > 0
    return tuple(flags.tolist())


def to_params(mask: Mask) -> dict[str, bool]:
    """A mask as parameters of an optimiser, one a unit."""
    return {f"unit_{unit:03d}": flag for unit, flag in enumerate(mask)}


def from_params(params: Mapping[str, bool]) -> Mask:
    """What `to_params` came from."""
    return tuple(bool(params[name]) for name in sorted(params))


def to_text(mask: Mask) -> str:
    """One character a unit: `1` kept, `0` left out."""
    return "".join("01"[flag] for flag in mask)


def from_text(text: str) -> Mask:
    """What `to_text` came from."""
    return tuple(flag == "1" for flag in text)


def _of(space: Space, units: Sequence[int] | np.ndarray) -> Mask:
    kept = {int(unit) for unit in units}
    return tuple(unit in kept for unit in range(space.num_units))


def _swapped(mask: Mask, one: int, other: int) -> Mask:
    flags = list(mask)
    flags[one], flags[other] = flags[other], flags[one]
    return tuple(flags)
