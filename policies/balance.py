"""Which worker a session uses, and when it leaves the one that knows it.

Power of two choices (Mitzenmacher, IEEE TPDS 12(10), 2001) by the seconds that a call would
take. Staying spares the computing of the prefix, and a move must pay by a margin, so sessions do
not wander. Pure: the caller samples with these functions, then describes only what it sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """One worker as the router sees it. `sessions` live there, of `slots` at the most; `hop_s`:
    of a call's way; `step_s`: of a step's computing; `queue_s`: that work waits before it.
    `util_frac`: share of the time that it computes, None where nobody measures it. `kv_frac`:
    share of the room for keys and values that is taken."""

    worker_id: str
    sessions: int
    slots: int
    hop_s: float = 0.0
    step_s: float = 0.0
    queue_s: float = 0.0
    util_frac: float | None = None
    kv_frac: float = 0.0


@dataclass(frozen=True, slots=True)
class BalanceSettings:
    """`margin`: share of the remaining time that a move must save; `kv_high`: use of keys and
    values above which a newcomer pushes others out."""

    margin: float = 0.2
    kv_high: float = 0.9


@dataclass(frozen=True, slots=True)
class Stake:
    """What a move is about. `recompute_s`: seconds to compute the prefix anew elsewhere;
    `calls_left`: calls that the session is still expected to make."""

    recompute_s: float = 0.0
    calls_left: float = 1.0


def sample(num_workers: int, draws: tuple[float, float]) -> tuple[int, ...]:
    """Two different indexes below `num_workers`, or the only one; `draws` are uniform in [0, 1)."""
    assert num_workers >= 1, num_workers
    first = int(draws[0] * num_workers)
    if num_workers == 1:
        return (first,)
    second = int(draws[1] * (num_workers - 1))
    return first, second + (second >= first)


def answer_s(load: WorkerLoad, stake: Stake, settings: BalanceSettings) -> float:
    """Expected seconds until a call of one more session is answered there.

    A step under way is waited for by half; unknown use is taken for busy. Where keys and values
    are nearly full, somebody's prefix will be computed anew, about one as long as this.
    """
    busy = 1.0 if load.util_frac is None else load.util_frac
    share = (load.sessions + 1) / load.slots
    evicts = max(load.kv_frac - settings.kv_high, 0.0) / (1 - settings.kv_high)
    evicting_s = min(evicts, 1.0) * stake.recompute_s
    return load.hop_s + load.queue_s + load.step_s * (1 + busy / 2 + share) + evicting_s


def best(candidates: Sequence[WorkerLoad], stake: Stake, settings: BalanceSettings) -> WorkerLoad:
    """The quickest; of equals the one with the fewest sessions, then by name."""
    return min(
        candidates, key=lambda at: (answer_s(at, stake, settings), at.sessions, at.worker_id)
    )


def moves(home: WorkerLoad, other: WorkerLoad, stake: Stake, settings: BalanceSettings) -> bool:
    """Whether to leave the worker that holds the prefix for `other`.

    `home` counts the session already. What the calls that are left save must pay for the prefix
    and, beyond that, for `margin` of their time.
    """
    here = replace(home, sessions=home.sessions - 1, kv_frac=0.0)
    stay_s = stake.calls_left * answer_s(here, Stake(), settings)
    move_s = stake.calls_left * answer_s(other, stake, settings) + stake.recompute_s
    return move_s < stay_s * (1 - settings.margin)


def waits(queue_s: float, patience_s: float) -> bool:
    """Whether a session waits for a proposing worker, or goes on without one this round."""
    return queue_s <= max(patience_s, 0.0)
