"""Which of several workers a session uses next: `policies.balance` with a draw behind it.

It knows workers by what balance asks of them; the live router and the simulated one use it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from policies.balance import BalanceSettings, Stake, WorkerLoad, best, moves, sample

_TOKENS_A_CALL = 2.0
"""Rough yield of a call, for how many calls a session still has before it."""


class Seat(Protocol):
    """A worker as the balancer sees it."""

    @property
    def closed(self) -> bool:
        """It takes nobody new, and who is there should move on."""
        ...

    @property
    def calm(self) -> bool:
        """It gives its sessions no reason to look around."""
        ...

    def load(self) -> WorkerLoad:
        """As balance sees it."""
        ...


S = TypeVar("S", bound=Seat)


class Balancer:
    """Draws two workers and takes the better one (`policies.balance`)."""

    def __init__(self, settings: BalanceSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng

    def choose(
        self,
        home: S | None,
        seats: Sequence[S],
        tokens_left: int,
        recompute_s: Callable[[S], float],
    ) -> S | None:
        """Where the session's next call goes: its home, unless that is closed or a move pays.

        `seats`: the open workers there are; None without one, for who has no home or a closed
        one. `recompute_s`: seconds to compute the session's prefix at a worker.
        """
        stay = None if home is None or home.closed else home
        if stay is not None and (len(seats) < 2 or stay.calm):
            return stay
        if not seats:
            return None
        drawn = sample(len(seats), (self._rng.random(), self._rng.random()))
        others = [seat for i in drawn if (seat := seats[i]) is not home]
        stake = Stake(recompute_s(others[0]), max(tokens_left / _TOKENS_A_CALL, 1.0))
        loads = [seat.load() for seat in others]
        found = best(loads, stake, self._settings)
        if stay is not None and not moves(stay.load(), found, stake, self._settings):
            return stay
        return others[loads.index(found)]
