"""A child process on a terminal of its own, and what it has drawn there."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300.0
_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """`drawn` is all that came so far, control codes included."""

    def __init__(self, child: subprocess.Popen[bytes], number: int) -> None:
        self.child = child
        self._number = number
        self.drawn = ""

    @property
    def text(self) -> str:
        """Without control codes."""
        return _CODES.sub("", self.drawn)

    def until(self, what: str) -> str:
        """Read until this text was drawn; gives all of the text."""
        end = time.monotonic() + PATIENCE_S
        while what not in self.text:
            assert time.monotonic() < end, self.text
            if not self._read(1.0):
                assert self.child.poll() is None or what in self.text, self.text
        return self.text

    def until_drawn(self, codes: str, times: int) -> None:
        """Read until these control codes came so often."""
        end = time.monotonic() + PATIENCE_S
        while self.drawn.count(codes) < times:
            assert time.monotonic() < end, self.text
            self._read(1.0)

    def press(self, keys: str) -> None:
        """As a person would."""
        os.write(self._number, keys.encode())

    def end(self) -> int:
        """Read to the end; gives the exit code."""
        end = time.monotonic() + PATIENCE_S
        while self.child.poll() is None:
            assert time.monotonic() < end, self.text
            self._read(0.2)
        while self._read(0.0):
            pass
        return self.child.returncode

    def _read(self, within_s: float) -> bool:
        ready, _, _ = select.select([self._number], [], [], within_s)
        if not ready:
            return False
        try:
            got = os.read(self._number, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.drawn += got.decode(errors="replace")
        return bool(got)


@contextmanager
def on_terminal(*arguments: str, columns: int = 120) -> Iterator[Terminal]:
    """`python …` on a terminal; ended by its id if it still runs."""
    number, inner = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "50"}
    command: Sequence[str] = [sys.executable, *arguments]
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        # A shell starts its background jobs deaf to Ctrl-C, and these tests with them.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    os.close(inner)
    try:
        yield Terminal(child, number)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        os.close(number)
