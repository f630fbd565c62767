"""Virtual time: what is due, in order. The only clock of a simulation."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """`now` in seconds; equal times run in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._asked = 0

    def at(self, when: float, action: Callable[..., None], *args: Any) -> None:
        """Call `action` at `when`, never before now."""
        self._asked += 1
        heapq.heappush(self._due, (max(when, self.now), self._asked, action, args))

    def run(self, going: Callable[[], bool]) -> None:
        """Until nothing is due, or `going` says no."""
        while self._due and going():
            self.now, _, action, args = heapq.heappop(self._due)
            action(*args)
