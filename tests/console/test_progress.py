"""Laws of progress: bars on a terminal, seldom a line elsewhere, and never on stdout."""

import io

import pytest
from rich.console import Console

from cluster.console.progress import QUIET_S, Bars, Lines


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


def test_without_a_terminal_there_are_lines_and_no_control_codes():
    out = io.StringIO()
    now = [0.0]
    with Bars(Console(file=out, force_terminal=False), lambda: now[0]) as bars:
        bar = bars.bar("tokens", 2000)
        for _ in range(3):
            bar.on(500, "loss 0.125")
            now[0] += QUIET_S / 2
    assert out.getvalue().splitlines() == [
        "500 of 2,000 tokens, loss 0.125",
        "1,500 of 2,000 tokens, loss 0.125",
    ]


def test_a_terminal_gets_a_bar_with_its_count():
    out = io.StringIO()
    with Bars(Console(file=out, force_terminal=True, width=100)) as bars:
        bars.bar("requests", 4).on(3, "off")
    assert "\x1b[" in out.getvalue()
    assert "3/4" in out.getvalue()


def test_progress_never_touches_stdout(capsys: pytest.CaptureFixture[str]):
    with Bars() as bars:
        bars.bar("answers", 2).on()
        bars.say("before: 1")
    said = capsys.readouterr()
    assert said.out == ""
    assert "1 of 2 answers" in said.err
