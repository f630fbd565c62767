"""Tables of the console: no frame, headings in bold, figures to the right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

Cell = str | Text
_ANY_WIDTH = 10_000


@dataclass(frozen=True, slots=True)
class Fitting:
    """A table that leaves columns out where the terminal is narrow, the first of `spare` first:
    figures that are folded to one digit a line tell nothing."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: int = 1
    spare: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many columns as there is room for."""
        wide = options.update(max_width=_ANY_WIDTH)
        made = self._made(())
        for number in range(1, len(self.spare) + 1):
            if Measurement.get(console, wide, made).maximum <= options.max_width:
                break
            made = self._made(self.spare[:number])
        yield made

    def _made(self, without: Sequence[str]) -> Table:
        kept = [at for at, heading in enumerate(self.headings) if heading not in without]
        return _filled(self.headings, self.rows, self.left, kept)


def table(headings: Sequence[str], rows: Iterable[Sequence[Cell]], *, left: int = 1) -> Table:
    """The first `left` columns and the last one to the left, the others to the right."""
    return _filled(headings, rows, left, range(len(headings)))


def _filled(
    headings: Sequence[str], rows: Iterable[Sequence[Cell]], left: int, kept: Iterable[int]
) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    kept = list(kept)
    for at in kept:
        flush = at < left or at == len(headings) - 1
        made.add_column(headings[at], justify="left" if flush else "right", overflow="fold")
    for row in rows:
        made.add_row(*(row[at] for at in kept))
    return made


def coloured(word: str, style: str) -> Text:
    """A word in a colour; what it means is in the word itself."""
    return Text(word, style=style)
