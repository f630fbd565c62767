"""Rank groups in processes of their own; what a test asks of rank 0's engine runs there."""

from __future__ import annotations

import multiprocessing
import secrets
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from actors.engine.build import EngineSpec, TierSource, build_engines
from actors.engine.ranks.engine import follow, lead
from actors.engine.ranks.group import GroupSpec, RankGroup, open_store
from actors.engine.transformers_engine import TransformersEngine
from policies.vocabulary import Tier
from tests.engine.toys import CPU

LIMIT_S = 1800.0
_SPAWN = multiprocessing.get_context("spawn")


def engine_spec(model_dir: Path, **sizes: int) -> EngineSpec:
    """Of a full model in float32, with room for a test."""
    room = {"num_slots": 6, "slot_tokens": 384, "token_budget": 64} | sizes
    return EngineSpec({Tier.FULL: TierSource(str(model_dir))}, "float32", "cpu", **room)


@dataclass(frozen=True)
class Leader:
    """Rank 0's process and the line to it."""

    processes: list[SpawnProcess]
    line: Connection
    exchange: str

    def ask(self, work: Callable[..., Any], *args: Any) -> Any:
        """work(engine, *args) in rank 0's process, which must be able to import it."""
        self.send(work, *args)
        return self.answer()

    def send(self, work: Callable[..., Any], *args: Any) -> None:
        """`ask` without waiting."""
        self.line.send((work, args))

    def answer(self) -> Any:
        """What the last work gave."""
        assert self.line.poll(LIMIT_S), "no answer"
        well, answer = self.line.recv()
        assert well, answer
        return answer


@contextmanager
def rank_group(spec: EngineSpec, size: int) -> Iterator[Leader]:
    """A group of `size` processes; on the way out none of them is left."""
    store = open_store("127.0.0.1", LIMIT_S)
    group = GroupSpec(size, "127.0.0.1", store.port, secrets.token_hex(16), LIMIT_S)
    ours, theirs = _SPAWN.Pipe()
    processes = [
        _SPAWN.Process(target=_lead, args=(spec, group, theirs), daemon=True),
        *(
            _SPAWN.Process(target=_follow, args=(spec, group, rank), daemon=True)
            for rank in range(1, size)
        ),
    ]
    try:
        for process in processes:
            process.start()
        theirs.close()
        assert ours.poll(LIMIT_S), "the ranks do not come up"
        yield Leader(processes, ours, ours.recv())
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join(LIMIT_S)
            assert not process.is_alive()
        ours.close()


def _lead(spec: EngineSpec, group_spec: GroupSpec, line: Connection) -> None:
    torch.set_num_threads(1)
    group = RankGroup(group_spec, 0, CPU)
    engine = lead(spec, group)
    line.send(type(group.exchange).__name__)
    while True:
        work, args = line.recv()
        try:
            line.send((True, work(engine, *args)))
        except Exception:
            line.send((False, traceback.format_exc()))


def _follow(spec: EngineSpec, group_spec: GroupSpec, rank: int) -> None:
    torch.set_num_threads(1)
    follow(spec, RankGroup(group_spec, rank, CPU))


def run_ranks(
    spec: EngineSpec, size: int, work: Callable[[EngineSpec, GroupSpec, int], None]
) -> None:
    """work(spec, group, rank) in a process for each rank, until all are done."""
    store = open_store("127.0.0.1", LIMIT_S)
    group = GroupSpec(size, "127.0.0.1", store.port, secrets.token_hex(16), LIMIT_S)
    processes = [_SPAWN.Process(target=work, args=(spec, group, rank)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def whole_engine(spec: EngineSpec) -> TransformersEngine:
    """The same model in one process, as a worker builds it."""
    engine = build_engines(spec)[Tier.FULL]
    assert isinstance(engine, TransformersEngine)
    return engine
