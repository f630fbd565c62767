"""Laws of lines without a terminal: seldom, and none beside a bar."""

import io

from rich.console import Console

from cluster.trio.lines import QUIET_S, Lines


def told(times, *, terminal: bool) -> list[str]:
    out = io.StringIO()
    now = [0.0]
    lines = Lines(Console(file=out, force_terminal=terminal), lambda: now[0])
    for t in times:
        now[0] = t
        lines.tell(f"at {t:g}")
    return out.getvalue().split("\n")[:-1]


def test_the_first_line_comes_at_once_and_others_at_intervals():
    assert told([0.0, 1.0, QUIET_S - 1, QUIET_S, QUIET_S + 5], terminal=False) == [
        "at 0",
        f"at {QUIET_S:g}",
    ]


def test_a_terminal_gets_none():
    assert told([0.0, 100.0], terminal=True) == []
