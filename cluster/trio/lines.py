"""Lines where there is no terminal for a bar: a job of minutes is not to look like it hangs."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

QUIET_S = 30.0
"""So often, where nobody watches a bar."""


class Lines:
    """Prints what it is told at most every QUIET_S seconds, and nothing on a terminal."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._told = -QUIET_S

    def tell(self, line: str) -> None:
        """Print the line, if it is time for one."""
        if self._console.is_terminal or self._clock() - self._told < QUIET_S:
            return
        self._told = self._clock()
        self._console.print(line)
