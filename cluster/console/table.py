"""Tables of the console: no frame, headings in bold, figures to the right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

Cell = str | Text


def table(
    headings: Sequence[str], rows: Iterable[Sequence[Cell]], *, left: int = 1, title: str = ""
) -> Table:
    """The first `left` columns and the last one to the left, the others to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title or None, title_justify="left")
    for at, heading in enumerate(headings):
        flush = at < left or at == len(headings) - 1
        made.add_column(heading, justify="left" if flush else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def coloured(word: str, style: str) -> Text:
    """A word in a colour; what it means is in the word itself."""
    return Text(word, style=style)
