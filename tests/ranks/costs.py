"""What ranks cost on this machine: `python -m tests.ranks.costs [SIZE]`, the default model.

Times of one step over the ranks against one process, in turn; and of what a step adds, between
processes that do nothing else: the sums of all layers, and the ways to send a pack.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import distributed

from actors.engine.build import EngineSpec
from actors.engine.ranks.group import GroupSpec, RankGroup
from actors.engine.seam import Extend
from actors.engine.transformers_engine import TransformersEngine
from cluster.fetch import fetch_default
from tests.engine.toys import CPU, context, text
from tests.ranks.groups import engine_spec, rank_group, run_ranks, whole_engine

ROUNDS = 20
PROMPT_TOKENS = 200
SESSIONS = (1, 4)
SUMS = 60
"""Two a layer."""


def main(size: int) -> None:
    torch.set_num_threads(1)
    spec = engine_spec(fetch_default(), num_slots=4)
    run_ranks(spec, size, in_turn)
    whole = whole_engine(spec)
    with rank_group(spec, size) as leader:
        for sessions in SESSIONS:
            ranked_s = [leader.ask(step_s, sessions)]
            whole_s = [step_s(whole, sessions)]
            for _ in range(ROUNDS):
                ranked_s.append(leader.ask(step_s, sessions))
                whole_s.append(step_s(whole, sessions))
            # The first has the prompts in it.
            show(f"a step of {sessions}, {size} ranks", ranked_s[1:])
            show(f"a step of {sessions}, one process", whole_s[1:])


def step_s(engine: TransformersEngine, sessions: int) -> float:
    """Seconds of a step of one row for each session, behind its prompt."""
    asked = [context(f"s{i}", text(i, PROMPT_TOKENS)) for i in range(sessions)]
    begin = time.perf_counter()
    engine.extend([Extend(one, PROMPT_TOKENS, 1) for one in asked])
    return time.perf_counter() - begin


def in_turn(spec: EngineSpec, group_spec: GroupSpec, rank: int) -> None:
    """The parts of a step, each between two meetings; the first rank prints."""
    torch.set_num_threads(1)
    group = RankGroup(group_spec, rank, CPU)
    part, message = torch.randn(4, 576), bytes(200)
    over_group = torch.zeros(len(message), dtype=torch.uint8)

    def send() -> None:
        if group.hub is not None:
            group.hub.send(message)
        else:
            assert group.spoke is not None
            group.spoke.take()

    def sums() -> None:
        for _ in range(SUMS):
            group.exchange.total(part)

    ways: dict[str, Callable[[], object]] = {
        "a meeting alone": lambda: None,
        "a pack by line": send,
        "a pack by gloo": lambda: distributed.broadcast(over_group, 0),
        f"{SUMS} sums of 4 rows": sums,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            group.exchange.total(part)
            begin = time.perf_counter()
            way()
            group.exchange.total(part)
            taken[name].append(time.perf_counter() - begin)
    distributed.barrier()
    if rank == 0:
        for name, seconds in taken.items():
            show(name, seconds)


def show(name: str, seconds: list[float]) -> None:
    cuts = statistics.quantiles((1000 * s for s in seconds), n=10)
    print(f"{name}: p50 {cuts[4]:.2f} ms, p90 {cuts[8]:.2f} ms", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
