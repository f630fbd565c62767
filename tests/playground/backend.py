"""Answers for the page without a model: written texts, a fleet's status, failures on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from actors.messages import GenerateRequest
from policies.vocabulary import Commit, PlanKind, SessionSpec
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


@dataclass
class PageBackend(FakeBackend):
    """Lossy modes answer another text than exact ones. `slow_s` lies between two commits."""

    slow_s: float = 0.0
    status: dict[str, Any] = field(default_factory=lambda: STATUS)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[tuple[int, Commit], None]:
        async for output in super().generate(request):
            yield output
            await asyncio.sleep(self.slow_s)

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        return self.is_ready, self.status

    async def version(self) -> dict[str, Any]:
        return {"version": "0", "dtype": "float32", "context": 4096}


def texts_of(codec: Any, eos: int) -> Any:
    """An `answer` of FakeBackend."""

    def answer(spec: SessionSpec) -> list[int]:
        lossy = spec.plan.kind in (PlanKind.CASCADE, PlanKind.VIA)
        return [*codec.encode(LOSSY_TEXT if lossy else TEXT), eos]

    return answer
