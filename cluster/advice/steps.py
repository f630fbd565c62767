"""How long a forward takes by rows and sessions: medians of interleaved repeats."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actors.engine.seam import Context, Engine, Extend
from cluster.advice.calibration import StepTime
from policies.vocabulary import SamplingParams, SamplingSpec, Tier

ALONE = (1, 2, 4, 5, 8, 9, 12, 13, 16, 17)
"""Rows of one session; steps are padded to multiples of four, so both sides of each edge."""
SHARED = (1, 2, 3, 5, 9)
"""Rows of each of several sessions."""
DRAFTED = (1, 2)
"""The draft decodes: a row a session, two where all of its last block was kept."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What to time. `text`: token ids that the sessions are made of; `context_tokens` each."""

    sessions: tuple[int, ...]
    context_tokens: int
    repeats: int
    text: Sequence[int]
    sampling: SamplingParams

    def cells(self, tier: Tier, token_budget: int) -> list[tuple[int, int]]:
        """(sessions, rows of each) that fit into one forward."""
        return [
            (sessions, rows)
            for sessions in self.sessions
            for rows in (DRAFTED if tier is Tier.DRAFT else ALONE if sessions == 1 else SHARED)
            if sessions * rows <= token_budget and rows < self.context_tokens
        ]


def time_steps(
    engines: Mapping[Tier, Engine],
    grid: Grid,
    token_budgets: Mapping[Tier, int],
    use: Callable[[Tier], None] = lambda tier: None,
    done: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[StepTime, ...]:
    """All tiers' cells in an order that is drawn anew for each repeat, so that a machine that
    slows down slows all of them. `use` is called before a tier computes, `done` after each
    repeat."""
    contexts = _contexts(grid)
    cells = [(t, *cell) for t in engines for cell in grid.cells(t, token_budgets[t])]
    for tier, engine in engines.items():
        use(tier)
        for context in contexts:
            engine.extend([Extend(context, len(context.tokens), 1)])
    taken: dict[tuple[Tier, int, int], list[float]] = {cell: [] for cell in cells}
    rng = random.Random(0)
    for _ in range(grid.repeats):
        for tier, sessions, rows in rng.sample(cells, len(cells)):
            use(tier)
            asked = [Extend(c, len(c.tokens), rows) for c in contexts[:sessions]]
            begin = clock()
            engines[tier].extend(asked)
            taken[tier, sessions, rows].append(clock() - begin)
        done()
    for engine in engines.values():
        for context in contexts:
            engine.release(context.session_id)
    return tuple(_step(*cell, seconds) for cell, seconds in taken.items())


def _contexts(grid: Grid) -> list[Context]:
    """Sessions of one length with different text."""
    made: list[Context] = []
    for number in range(max(grid.sessions)):
        ids = np.resize(np.roll(np.asarray(grid.text), -7 * number), grid.context_tokens)
        sampling = SamplingSpec(grid.sampling, number, 0, grid.context_tokens // 2)
        made.append(Context(f"timed-{number}", sampling, tokens=ids.tolist()))
    return made


def _step(tier: Tier, sessions: int, rows: int, seconds: Sequence[float]) -> StepTime:
    p50 = statistics.median(seconds)
    p90 = float(np.percentile(seconds, 90))
    return StepTime(tier, sessions, sessions * rows, p50, p90)
