"""Progress of a job on stderr: bars on a terminal, else a line now and then, so that a job of
minutes does not look as if it hung. It knows no job."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
        self._console.print(line, highlight=False, soft_wrap=True)


class Bars:
    """The bars of one job, one for each of its parts; to be entered before they move."""

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console or Console(stderr=True)
        self._lines = Lines(self.console, clock)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            refresh_per_second=4,
        )

    def __enter__(self) -> Bars:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def bar(self, what: str, total: int, done: int = 0) -> Bar:
        """A new one. `what` is counted: tokens, requests, …"""
        return Bar(self._bars, self._lines, what, total, done)

    def counting(self, what: str) -> Callable[..., None]:
        """For a job that tells how much is done, of how much, and may add a note. Its bar comes
        with the first word of it."""
        bars: list[Bar] = []

        def saw(done: int, total: int, note: str = "") -> None:
            if not bars:
                bars.append(self.bar(what, total))
            bars[0].to(done, note)

        return saw

    def say(self, line: str) -> None:
        """A line of its own, above the bars."""
        self.console.print(line, highlight=False, soft_wrap=True)


class Bar:
    """One count that grows towards its total."""

    def __init__(self, bars: Progress, lines: Lines, what: str, total: int, done: int) -> None:
        self._bars = bars
        self._lines = lines
        self._what = what
        self._total = total
        self._done = done
        self._task = bars.add_task(what, total=total, completed=done, note="")

    def to(self, done: int, note: str = "") -> None:
        """So much is done; `note` is shown beside it."""
        self._done = done
        self._bars.update(self._task, completed=done, note=note)
        tail = f", {note}" if note else ""
        self._lines.tell(f"{done:,} of {self._total:,} {self._what}{tail}")

    def on(self, by: int = 1, note: str = "") -> None:
        """So much more is done."""
        self.to(self._done + by, note)
