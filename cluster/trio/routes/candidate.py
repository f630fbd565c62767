"""One candidate of a route search: a mask, and what its weights are."""

from __future__ import annotations

from dataclasses import dataclass

from policies.masks import Mask


@dataclass(frozen=True, slots=True)
class Candidate:
    """`int8`: its linear layers are weight-only int8; else as the model's."""

    mask: Mask
    int8: bool = False

    @property
    def size(self) -> int:
        """Kept units."""
        return sum(self.mask)
