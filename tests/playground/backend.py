"""Answers for the page without a model: written texts, a fleet's status, failures on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

from actors.messages import GenerateRequest
from policies.vocabulary import Commit, PlanKind, SessionSpec, Stage, StageTime, Tier
from tests.ingress.fakes import FakeBackend

TEXT = "The quick brown fox — 🦊 — jumps over the lazy dog, and it does so <b>again</b> & again."
LOSSY_TEXT = TEXT.replace("lazy", "sleepy")

WORKER = {
    "worker_id": "large-0-5f3c9a",
    "pool": "large",
    "device": "cpu",
    "tiers": ["full"],
    "sessions": 1,
    "steps": 41,
    "slow": True,
    "late": 0,
    "draining": False,
    "probe": {"util_mean_frac": 0.4, "util_of": "step loop"},
}
STATUS = {
    "status": "degraded",
    "running": 1,
    "queued": 0,
    "workers": [WORKER],
    "pools": [
        {
            "name": "cheap",
            "wanted": 1,
            "running": 0,
            "missing": [{"worker_id": "cheap-0", "placed": False, "why": "no node has <GPU>"}],
        },
        {
            "name": "large",
            "wanted": 1,
            "running": 1,
            "missing": [],
            "tiers": ["full"],
            "util_frac": 0.4,
            "sessions": 1,
            "waiting": 0,
            "step_s": 0.031,
            "kv_frac": 0.25,
        },
    ],
    "auto": {"in_force": "two_tier", "token_s": {"off": 0.08, "two_tier": 0.05}},
    "audit": {"rows": 0},
}


_STEPS = (
    (Stage.PROPOSE, Tier.DRAFT, "cheap", "cheap-0-71bb02", 0.012),
    (Stage.SCREEN, Tier.SLIM, "cheap", "cheap-0-71bb02", 0.018),
    (Stage.VERIFY, Tier.FULL, "large", "large-0-5f3c9a", 0.04),
)
_ROUND_S = 0.1


def stages_of(round_number: int, committed: int) -> tuple[StageTime, ...]:
    """What a round took: a tenth of a second, three tiers of two workers."""
    start_s = _ROUND_S * round_number
    stages: list[StageTime] = []
    if round_number == 0:
        stages.append(
            StageTime(Stage.QUEUE, None, "large", "large-0-5f3c9a", 0, 0, 0.02, 0, 0, 0, 0)
        )
        start_s += 0.02
    for stage, tier, pool, worker, busy_s in _STEPS:
        of_full = committed if tier is Tier.FULL else 0
        times = (start_s, busy_s + 0.003, busy_s)
        stages.append(StageTime(stage, tier, pool, worker, round_number, *times, 2, 5, of_full))
        start_s += busy_s + 0.003
    return tuple(stages)


@dataclass
class PageBackend(FakeBackend):
    """Lossy modes answer another text than exact ones. `slow_s` lies between two commits."""

    slow_s: float = 0.0
    status: dict[str, Any] = field(default_factory=lambda: STATUS)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[tuple[int, Commit], None]:
        async for index, commit in super().generate(request):
            stages = stages_of(commit.counters.rounds - 1, len(commit.tokens))
            yield index, replace(commit, stages=stages)
            await asyncio.sleep(self.slow_s)

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        return self.is_ready, self.status

    async def version(self) -> dict[str, Any]:
        return {"version": "0", "dtype": "float32", "context": 4096}


class Stand:
    """Stands before a backend that a test may change while the server runs."""

    def __init__(self) -> None:
        self.backend: FakeBackend

    def generate(self, request: GenerateRequest) -> AsyncGenerator[tuple[int, Commit], None]:
        return self.backend.generate(request)

    async def health(self) -> dict[str, Any]:
        return await self.backend.health()

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        return await self.backend.ready()

    async def version(self) -> dict[str, Any]:
        return await self.backend.version()


def texts_of(codec: Any, eos: int) -> Any:
    """An `answer` of FakeBackend."""

    def answer(spec: SessionSpec) -> list[int]:
        lossy = spec.plan.kind in (PlanKind.CASCADE, PlanKind.VIA)
        return [*codec.encode(LOSSY_TEXT if lossy else TEXT), eos]

    return answer
