"""Single keys from a terminal, without Enter. Where stdin is none, nobody presses any."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator

END = "\x04"
"""Ctrl-D."""


class SingleKeys:
    """In it the terminal gives keys at once and shows none; afterwards it is as before."""

    def __init__(self) -> None:
        self._before = termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None

    def __enter__(self) -> SingleKeys:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def take(self) -> None:
        """From now on; again after `give_back`."""
        if self._before is not None:
            tty.setcbreak(sys.stdin)

    def give_back(self) -> None:
        """As it was."""
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)


@contextlib.contextmanager
def giving_way(leave: Callable[[], None], come_back: Callable[[], None]) -> Iterator[None]:
    """A process that is stopped (Ctrl-Z) leaves the screen first and comes back when it goes on;
    one that is ended by SIGTERM leaves by SystemExit, so that its screen is cleared up."""

    def stop(number: int, _: object) -> None:
        leave()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # here it stands until SIGCONT
        signal.signal(number, stop)
        come_back()

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGTERM)}
    if before[signal.SIGTSTP] is signal.SIG_DFL:  # a shell without job control ignores it
        signal.signal(signal.SIGTSTP, stop)
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def key_within(seconds: float) -> str:
    """The next key, or nothing after so long; END where the terminal is gone."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    if not ready:
        return ""
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace") or END
