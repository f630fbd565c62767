"""A look at a server on a terminal of so many lines: what does not fit is counted, never just
cut off, and the key that ends it is always to be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

from cluster.console.fleet import Worker
from cluster.console.frame import above_workers, below_workers, workers_table
from cluster.console.look import Look
from cluster.console.words import some

_Lines = list[list[Segment]]
_LinesOf = Callable[..., _Lines]
_TABLE_LINES = 3
"""Of one more table besides its rows: headings, rule, and a blank line."""


@dataclass(frozen=True, slots=True)
class Screenful:
    """`over`: lines above all else. No look where nothing has been seen yet."""

    look: Look | None
    url: str
    over: Sequence[Text] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many lines as there are, the last one for the keys."""
        height = options.height or console.height

        def lines_of(*parts: RenderableType) -> _Lines:
            return _squeezed(console.render_lines(Group(*parts), options.reset_height(), pad=False))

        shown = lines_of(*self.over, *self._parts(height - 1, lines_of))
        keys = "q ends"
        if len(shown) > height - 1:
            keys += "; a taller terminal shows more, --once all"
        for line in [*shown[: height - 1], *lines_of(Text(keys, "dim", no_wrap=True))]:
            yield from line
            yield Segment.line()

    def _parts(self, height: int, lines_of: _LinesOf) -> list[RenderableType]:
        if self.look is None:
            return []
        above, below = above_workers(self.look, self.url), below_workers(self.look.fleet)
        workers = self.look.fleet.workers
        room = height - len(lines_of(*self.over, *above, *below)) - _TABLE_LINES
        if len(workers) > room:
            return [*above, *_shortened(workers, max(room - 2, 1)), *below]
        return [*above, workers_table(workers), *below]


def _shortened(workers: Sequence[Worker], rows: int) -> list[RenderableType]:
    """Those that are not well first, and how many are left out."""
    by_health = sorted(workers, key=lambda worker: worker.health == "ok")
    left_out = by_health[rows:]
    unwell = sum(worker.health != "ok" for worker in left_out)
    line = f" and {some(len(left_out), 'more worker')}, {unwell or 'none'} of them unwell"
    return [workers_table(by_health[:rows]), *([Text(line, "dim")] if left_out else [])]


def _squeezed(lines: _Lines) -> _Lines:
    """One blank line where there are several."""
    blank = [not "".join(segment.text for segment in line).strip() for line in lines]
    return [line for at, line in enumerate(lines) if not (at and blank[at] and blank[at - 1])]
