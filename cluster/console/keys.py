"""Single keys from a terminal, without Enter. Where stdin is none, nobody presses any."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator

END = "\x04"
"""Ctrl-D."""


@contextlib.contextmanager
def single_keys() -> Iterator[None]:
    """The terminal gives keys at once and shows none; afterwards it is as before."""
    if not sys.stdin.isatty():
        yield
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def key_within(seconds: float) -> str:
    """The next key, or nothing after so long; END where the terminal is gone."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    if not ready:
        return ""
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace") or END
