"""The worker: the process that holds weights and caches of one or more tiers and does steps.

A plain class; `cluster.placement` makes the Ray actor of it. Steps come one at a time, the
report may be asked beside a running step.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from functools import partial

import torch

from actors.engine.build import EngineSpec, build_engines
from actors.engine.invariance import rows_are_invariant
from actors.engine.lookup_first import behind
from actors.engine.ranks.engine import follow, lead
from actors.engine.ranks.group import GroupSpec, RankGroup
from actors.engine.seam import Engine
from actors.engine.sizes import weight_bytes
from actors.engine.transformers_engine import TransformersEngine
from actors.heap import freeze_heap
from actors.lease import ComputeLease
from actors.messages import StepReply, StepRequest, WorkerReport
from actors.step_trace import trace_step
from actors.tiers import TierHost
from infra.probe.host import BusyTime, HostMeter
from infra.probe.nvml import Cards
from infra.probe.sampler import ProbeSettings, Sampler
from infra.tracing import TracingSettings, open_tracer
from policies.vocabulary import Tier


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker is to be. `threads` 0: leave torch's default (CUDA). `niceness` is added
    to the process's; `lease`: name of the cores it shares with others, None for its own.
    `memory_frac`: of its card's memory, what it may take; None is all of it. `price_per_hour`:
    what it costs in USD, None where nobody has said.
    With `ranks` it is a group of processes: a Worker leads, a Follower is each of the others."""

    worker_id: str
    pool: str
    engine: EngineSpec
    threads: int
    niceness: int
    lease: str | None
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    ranks: GroupSpec | None = None
    memory_frac: float | None = None
    price_per_hour: float | None = None
    tracing: TracingSettings = field(default_factory=TracingSettings)


class Worker:
    """Loads its tiers on construction; then answers steps."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._began_s = time.monotonic()
        _settle(spec)
        self._spec = spec
        self._busy = BusyTime()
        self._step_s = self._item_s = 0.0
        self._tracer = open_tracer(spec.tracing, "worker")
        self._sampler = _sampler(spec, self._busy)
        self._sampler.start()
        # Of a group too: the others compute while rank 0 does.
        self._lease = ComputeLease(spec.lease)
        self._rank_pids: tuple[int, ...] = ()
        self._engines: dict[Tier, Engine] = {}
        if spec.ranks is None:
            self._engines |= build_engines(spec.engine)
        else:
            group = RankGroup(spec.ranks, 0, torch.device(spec.engine.device))
            self._rank_pids = group.pids
            self._engines[Tier.FULL] = lead(spec.engine, group)
        with self._lease:
            self._row_invariant = all(map(_is_invariant, self._engines.values()))
        self._host = TierHost(self._engines, time.monotonic)
        made = map(behind, self._engines.values())
        self._weight_bytes = weight_bytes(
            e.model for e in made if isinstance(e, TransformersEngine)
        )
        freeze_heap()

    def step(self, request: StepRequest) -> StepReply:
        """One batched call; see WorkItem."""
        with self._lease, self._busy:
            begin = time.monotonic()
            replies = self._host.step(request)
            busy_s = time.monotonic() - begin
            if request.items:
                self._step_s += busy_s
                self._item_s += busy_s * len(request.items)
            reply = StepReply(replies, busy_s, self._host.take_timings())
        if request.traces and self._tracer is not None:
            pool, worker_id = self._spec.pool, self._spec.worker_id
            trace_step(self._tracer, pool, worker_id, request, reply, time.time())
        return reply

    def report(self) -> WorkerReport:
        """What it is and holds."""
        spec = self._spec
        return WorkerReport(
            worker_id=spec.worker_id,
            pool=spec.pool,
            tiers=tuple(self._engines),
            device=spec.engine.device,
            threads=torch.get_num_threads(),
            pid=os.getpid(),
            slots=spec.engine.num_slots,
            slot_tokens=spec.engine.slot_tokens,
            token_budget=spec.engine.token_budget,
            row_invariant=self._row_invariant,
            sessions=self._host.num_sessions,
            weight_bytes=self._weight_bytes,
            engines={Tier(tier): stats for tier, stats in self._host.stats().items()},
            probe=self._sampler.last,
            rank_pids=self._rank_pids,
            busy_s=self._step_s,
            item_s=self._item_s,
            lived_s=time.monotonic() - self._began_s,
            price_per_hour=spec.price_per_hour,
        )

    def close(self) -> None:
        """End what runs beside the steps, and export what is left of their spans."""
        self._sampler.stop()
        if self._tracer is not None:
            self._tracer.flush()


def _sampler(spec: WorkerSpec, busy: BusyTime) -> Sampler:
    """Looks at the worker's own device alone: one on a CPU leaves the machine's GPUs unasked."""
    device = torch.device(spec.engine.device)
    cards = None
    if device.type == "cuda":
        cards = partial(Cards, os.environ.get("CUDA_VISIBLE_DEVICES"), (device.index or 0,))
    return Sampler(spec.probe, HostMeter(busy.seconds), cards)


class Follower:
    """A rank of a worker's group other than the one that routers call."""

    def __init__(self, spec: WorkerSpec, rank: int) -> None:
        assert spec.ranks is not None
        _settle(spec)
        self._engine = spec.engine
        self._ranks = spec.ranks
        self._rank = rank

    def follow(self) -> None:
        """Join the group and do its passes. What goes wrong before it has is raised; later on
        the process ends."""
        device = torch.device(self._engine.device)
        follow(self._engine, RankGroup(self._ranks, self._rank, device))


def _settle(spec: WorkerSpec) -> None:
    """Threads and priority of this process, and its bound on the card that it shares."""
    if spec.threads:
        torch.set_num_threads(spec.threads)
    with contextlib.suppress(PermissionError):
        os.nice(spec.niceness)
    if spec.memory_frac is not None:
        card = torch.device(spec.engine.device).index or 0
        torch.cuda.set_per_process_memory_fraction(spec.memory_frac, card)


def _is_invariant(engine: Engine) -> bool:
    engine = behind(engine)
    if not isinstance(engine, TransformersEngine) or not engine.row_invariant:
        return True
    return rows_are_invariant(engine, engine.vocab_size)
