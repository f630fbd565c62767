"""An ingress's plain numbers for metrics: what requests took and how they ended.

A commit costs a look at the clock and an append; whoever exports takes the numbers every few
seconds. It knows no metric and no process.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Taken:
    """What has come since the last time, by mode. Seconds: one entry each.

    `first_s`: until a choice's first token; `gap_s`: since the commit before, over its tokens,
    one a commit; `whole_s`: until a choice had ended. `ended`: choices by (mode, reason);
    `failed`: requests by (mode, HTTP status).
    """

    first_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    gap_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    whole_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    prompt_tokens: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)


class RequestTally:
    """Of one ingress."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.now = Taken()

    def take(self) -> Taken:
        """What has come since the last time."""
        taken, self.now = self.now, Taken()
        return taken


class RequestWatch:
    """One request as it runs. `since_s`: when it came."""

    def __init__(
        self, tally: RequestTally, mode: str, since_s: float, num_choices: int, prompt_tokens: int
    ) -> None:
        self._tally = tally
        self._mode = mode
        self._since_s = since_s
        self._prompt_tokens = prompt_tokens
        self._last_s: list[float | None] = [None] * num_choices
        self._running = num_choices

    def saw(self, index: int, num_tokens: int, finish: str | None) -> None:
        """A commit of that choice, and the end of it if it has finished."""
        tally, now_s = self._tally, self._tally.clock()
        before_s = self._last_s[index]
        if num_tokens:
            if before_s is None:
                tally.now.first_s[self._mode].append(now_s - self._since_s)
                tally.now.prompt_tokens[self._mode] += self._prompt_tokens
                self._prompt_tokens = 0
            else:
                tally.now.gap_s[self._mode].append((now_s - before_s) / num_tokens)
            self._last_s[index] = now_s
        if finish is not None:
            self._running -= 1
            tally.now.ended[self._mode, finish] += 1
            tally.now.whole_s[self._mode].append(now_s - self._since_s)

    def failed(self, status: int) -> None:
        """The request ended with this HTTP status; its choices are counted no more."""
        self._running = 0
        self._tally.now.failed[self._mode, str(status)] += 1

    def left(self) -> None:
        """Nobody listens any more: what still runs was aborted."""
        if self._running:
            self._tally.now.ended[self._mode, "abort"] += self._running
        self._running = 0
