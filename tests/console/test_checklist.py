"""Laws of what `serve` says: lines for scripts, a list that ticks itself off for people."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console

from cluster.console.checklist import LiveTeller
from cluster.console.start import Stage
from tests.console.stub import status
from tests.console.terminal import ROOT, on_terminal

START = ("-m", "tests.console.starting")


def test_a_pipe_gets_plain_lines_each_once_and_no_control_codes():
    done = subprocess.run(
        [sys.executable, *START], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "viaserve: starting",
        "viaserve: pool cheap: 0 of 2 workers; no node has L4",
        "viaserve: waiting for workers to load: draft",
        "viaserve: pool cheap: 0 of 1 workers; no node has L4",
        "viaserve: a model",
        "  large-1: cpu",
        "viaserve: ready at http://here after 12 s",
        "viaserve: stopping",
    ]
    assert "\x1b" not in done.stdout


def test_a_terminal_gets_the_list_then_one_live_line():
    with on_terminal(*START) as terminal:
        assert terminal.end() == 0, terminal.text
        text, drawn = terminal.text, terminal.drawn
    assert "\x1b[" in drawn
    for stage in Stage:
        assert f"✓ {stage}" in text
    assert "ready at http://here after 12 s" in text
    assert "degraded (without draft)  3 running, 7 queued" in text
    assert "no server answers at here" in text
    assert text.rstrip().endswith("stopping")
    assert "viaserve: " not in text, "the lines are for scripts"


def drawn_at(*stages: Stage, fault: bool = False) -> list[str]:
    """What stands there after these stages, and after a fault in the last one."""
    out = io.StringIO()
    teller = LiveTeller(Console(file=out, force_terminal=False, width=100), lambda: 0.0)
    try:
        with teller:
            for stage in stages:
                teller.begin(stage)
            if Stage.WORKERS in stages:
                teller.saw(status(), ["draft"])
            if fault:
                raise RuntimeError
    except RuntimeError:
        pass
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_each_missing_worker_says_why_it_is_not_there():
    lines = drawn_at(Stage.CONFIG, Stage.WORKERS)
    assert any("large" in line and "2 of 2 workers ready" in line for line in lines)
    assert any("cheap-1: waiting: no node has L4" in line for line in lines)


@pytest.mark.parametrize("stage", [Stage.CONFIG, Stage.RAY, Stage.WORKERS])
def test_a_fault_marks_its_stage_and_no_other(stage: Stage):
    marks = {
        line.split()[1]: line[0]
        for line in drawn_at(*_up_to(stage), fault=True)[1:]
        if line and not line.startswith(" ")
    }
    assert [name for name, mark in marks.items() if mark == "✗"] == [stage]


def _up_to(last: Stage) -> list[Stage]:
    stages = list(Stage)
    return stages[: stages.index(last) + 1]
