"""What router and worker cost a call beyond the wire and the engines: measured in process, with
engines that are a hash, through the real router, session and tier host."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import aclosing

from actors.auditor import Auditor
from actors.engine.fake import FakeEngine
from actors.messages import (
    GenerateRequest,
    Membership,
    StepReply,
    StepRequest,
    WorkerEntry,
    WorkerReport,
)
from actors.planner import Planner
from actors.router import Router, RouterSettings
from actors.tiers import TierHost
from policies.audit import AuditRow
from policies.audit_state import AuditState
from policies.lossy import LossySettings
from policies.plan_settings import ControllerSettings
from policies.vocabulary import Plan, PlanKind, SamplingParams, SamplingSpec, SessionSpec, Tier

_PLAN = Plan(PlanKind.TWO_TIER, 4, 4)
_PROMPT = 128


class _Here:
    """A worker in this process; `spent_s` is what its engines took."""

    def __init__(self, name: str, tier: Tier, agreement: float) -> None:
        self._host = TierHost({tier: FakeEngine(agreement=agreement)}, time.perf_counter)
        self.spent_s, self.calls = 0.0, 0
        self.entry = WorkerEntry(
            self,
            WorkerReport(
                worker_id=name,
                pool=name,
                tiers=(tier,),
                device="cpu",
                threads=1,
                pid=0,
                slots=64,
                slot_tokens=4096,
                token_budget=256,
                row_invariant=True,
                sessions=0,
                weight_bytes=0,
                engines={},
            ),
        )

    def step(self, request: StepRequest) -> StepReply:
        replies = self._host.step(request)
        timings = self._host.take_timings()
        busy_s = sum(timing.seconds for timing in timings)
        self.spent_s += busy_s
        self.calls += 1
        return StepReply(replies, busy_s, timings)


async def _call(handle: _Here, request: StepRequest) -> StepReply:
    return handle.step(request)


async def _no_audit(rows: Sequence[AuditRow]) -> AuditState:
    return AuditState("")


def router_call_s(num_tokens: int = 800) -> float:
    """Seconds of one call without its engine, over a two-tier session of so many tokens."""
    return asyncio.run(_measured(num_tokens))


async def _measured(num_tokens: int) -> float:
    workers = [_Here("draft", Tier.DRAFT, 0.7), _Here("full", Tier.FULL, 1.0)]
    auditor = Auditor(LossySettings(), _PLAN, _no_audit)
    planner = Planner(ControllerSettings(), random.Random(0))
    router = Router(RouterSettings(), _call, auditor, planner)
    router.set_members(Membership(1, tuple(worker.entry for worker in workers)))
    sampling = SamplingSpec(SamplingParams(), 0, 0, _PROMPT)
    spec = SessionSpec("timed", tuple(range(_PROMPT)), sampling, num_tokens, plan=_PLAN)
    begin = time.perf_counter()
    async with aclosing(router.generate(GenerateRequest("timed", (spec,)))) as outputs:
        async for _ in outputs:
            pass
    wall_s = time.perf_counter() - begin
    spent_s = sum(worker.spent_s for worker in workers)
    return max(wall_s - spent_s, 0.0) / sum(worker.calls for worker in workers)
