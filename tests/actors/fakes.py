"""Workers in this process, time by hand, and routers over both: what router tests are made of."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from time import time
from typing import Any

from actors.auditor import Auditor
from actors.engine.fake import FakeEngine
from actors.messages import (
    GenerateRequest,
    Membership,
    Refusal,
    StepReply,
    StepRequest,
    WorkerEntry,
    WorkerReport,
)
from actors.planner import Planner
from actors.pool import WorkerGone
from actors.router import Router, RouterSettings
from actors.step_trace import trace_step
from actors.tiers import TierHost
from infra.probe.sample import NOT_SAMPLED
from infra.tracing import Tracer
from policies.audit import AuditRow, AuditSettings, observe
from policies.audit_state import AuditState
from policies.lossy import LossySettings
from policies.plan_settings import ControllerSettings
from policies.vocabulary import (
    Commit,
    FinishReason,
    Plan,
    PlanKind,
    SamplingParams,
    SamplingSpec,
    SessionSpec,
    Tier,
)

OFF = Plan(PlanKind.OFF)
TWO_TIER = Plan(PlanKind.TWO_TIER, gamma=4)
THREE_TIER = Plan(PlanKind.THREE_TIER, gamma=3, block=7)
PLANS = (OFF, TWO_TIER, THREE_TIER)
CHEAP = (Tier.DRAFT, Tier.SLIM)
LARGE = (Tier.FULL,)
AGREEMENT = {Tier.DRAFT: 0.6, Tier.SLIM: 0.85, Tier.FULL: 1.0}


async def one_pass() -> None:
    """Let the event loop run everything that is ready now."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_soon(passed.set)
    await passed.wait()


async def until(happened: Callable[[], object]) -> None:
    """Run the loop until it happened; nothing here waits for real time, so passes suffice."""
    for _ in range(20_000):
        if happened():
            return
        await one_pass()
    raise AssertionError("it never happens")


def tasks_since(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Tasks that were left behind."""
    return asyncio.all_tasks() - before - {asyncio.current_task()}


@dataclass(eq=False)
class _Timer:
    due_s: float
    fire: Callable[[], object]
    over: bool = False

    def cancel(self) -> None:
        self.over = True


class ManualTime:
    """A clock that moves when told to; `call_later` stands in for the event loop's."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._timers: list[_Timer] = []

    def __call__(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Any, *args: Any, context: Any = None) -> _Timer:
        timer = _Timer(self.now_s + delay_s, lambda: callback(*args))
        self._timers.append(timer)
        return timer

    def call_at(self, when_s: float, callback: Any, *args: Any, context: Any = None) -> _Timer:
        """Of asyncio.timeout; the world leaves that to real time."""
        delay_s = when_s - asyncio.get_running_loop().time()
        return self.call_later(delay_s, callback, *args, context=context)

    @property
    def pending(self) -> int:
        """Timers that would still fire."""
        return sum(not timer.over for timer in self._timers)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        for timer in self._timers:
            if not timer.over and timer.due_s <= self.now_s:
                timer.over = True
                timer.fire()


async def in_time(time: ManualTime, *awaited: Awaitable[Any]) -> list[Any]:
    """What these give, while the clock goes on in small steps: failed steps are retried after
    a while only. Exceptions are results."""
    tasks = [asyncio.ensure_future(each) for each in awaited]
    for number in range(20_000):
        if all(task.done() for task in tasks):
            break
        await one_pass()
        if number % 10 == 9:
            time.advance(0.02)
    return await asyncio.gather(*tasks, return_exceptions=True)


class FakeWorker:
    """Tiers over fake engines, stepped one call at a time, with faults on demand.

    `before_step` sees each request before it is done and may raise; `go` unset holds the
    steps. `dead` answers WorkerGone; `draining` is announced with it. `busy_s`, `forward_s`:
    seconds that it says a step took, and each forward of a tier on top.
    """

    def __init__(self, worker_id: str, tiers: Iterable[Tier], **report: int) -> None:
        self.worker_id = worker_id
        self.engines = {
            tier: FakeEngine(agreement=AGREEMENT[tier], salt=salt)
            for salt, tier in enumerate(tiers)
        }
        self._host = TierHost(self.engines, lambda: 0.0)
        self._report = {"slots": 64, "token_budget": 256} | report
        self._turn = asyncio.Lock()
        self.go = asyncio.Event()
        self.go.set()
        self.dead = False
        self.pool = "fake"
        self.probe = NOT_SAMPLED
        self.draining = False
        self.before_step: Callable[[StepRequest], object] = lambda request: None
        self.busy_s = 0.0
        self.forward_s: dict[Tier, float] = {}
        self.tracer: Tracer | None = None
        self.requests: list[StepRequest] = []
        self.in_flight = 0
        self.most_in_flight = 0

    @property
    def entry(self) -> WorkerEntry:
        return WorkerEntry(
            self,
            WorkerReport(
                worker_id=self.worker_id,
                pool=self.pool,
                tiers=tuple(self.engines),
                device="cpu",
                threads=1,
                pid=0,
                slot_tokens=4096,
                row_invariant=True,
                sessions=self._host.num_sessions,
                weight_bytes=0,
                engines={},
                probe=self.probe,
                **self._report,
            ),
            self.draining,
        )

    @property
    def work(self) -> list[StepRequest]:
        """The calls so far that carried items."""
        return [request for request in self.requests if request.items]

    @property
    def holds(self) -> dict[str, set[str]]:
        """Sessions that something here still remembers, by who remembers them."""
        held = {str(tier): set(engine.cached) for tier, engine in self.engines.items()}
        return {name: ids for name, ids in held.items() if ids} | (
            {"contexts": {str(self._host.num_sessions)}} if self._host.num_sessions else {}
        )

    def forget(self) -> None:
        """Lose every session, as a restarted worker has."""
        seen = {item.session_id for request in self.requests for item in request.items}
        self._host.release(seen)

    async def step(self, request: StepRequest) -> StepReply:
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            async with self._turn:
                await self.go.wait()
                self.before_step(request)
                if self.dead:
                    raise WorkerGone(f"{self.worker_id} is dead")
                replies = self._host.step(request)
                timings = tuple(
                    replace(timing, seconds=timing.forwards * self.forward_s.get(timing.tier, 0.0))
                    for timing in self._host.take_timings()
                )
                busy_s = self.busy_s + sum(timing.seconds for timing in timings)
                reply = StepReply(replies, busy_s, timings)
                if request.traces and self.tracer is not None:
                    trace_step(self.tracer, self.pool, self.worker_id, request, reply, time())
                return reply
        finally:
            self.in_flight -= 1


def at_call(number: int, fault: Callable[[], object]) -> Callable[[StepRequest], object]:
    """A `before_step` that does something once, at the worker's call of that number."""
    calls = iter(range(1, 1_000_000))
    return lambda request: fault() if next(calls) == number else None


def failing(
    error: Exception, times: int = 1_000, session_id: str = ""
) -> Callable[[StepRequest], object]:
    """A `before_step` that raises, where the session shares the step, so many times."""
    left = iter(range(times))

    def fault(request: StepRequest) -> None:
        concerned = [i for i in request.items if i.session_id.startswith(session_id)]
        if concerned and next(left, None) is not None:
            raise error

    return fault


def call(handle: FakeWorker, request: StepRequest) -> Any:
    """The router's way to a fake worker."""
    return handle.step(request)


@dataclass
class World:
    """Routers and workers of one test. Workers that a test lets die or hang are `excused`
    from the check that nobody holds a session at the end."""

    time: ManualTime
    routers: list[Router] = field(default_factory=list)
    workers: list[FakeWorker] = field(default_factory=list)
    excused: list[FakeWorker] = field(default_factory=list)
    audit_settings: AuditSettings = field(default_factory=AuditSettings)
    audit_state: AuditState = field(default_factory=lambda: AuditState("trio"))
    _versions: int = 0

    async def report(self, rows: Sequence[AuditRow]) -> AuditState:
        self.audit_state = observe(self.audit_state, self.audit_settings, rows)
        return self.audit_state

    def worker(self, worker_id: str, tiers: Iterable[Tier], **report: int) -> FakeWorker:
        self.workers.append(FakeWorker(worker_id, tiers, **report))
        return self.workers[-1]

    def router(self, *workers: FakeWorker, tracer: Tracer | None = None, **settings: Any) -> Router:
        lossy = LossySettings(audit=self.audit_settings)
        auditor = Auditor(lossy, TWO_TIER, self.report)
        planner = Planner(ControllerSettings(), random.Random(0))
        router = Router(
            RouterSettings(**settings),
            call,
            auditor,
            planner,
            self.time,
            random.Random(0),
            tracer,
        )
        self.routers.append(router)
        self.announce(*workers, router=self.routers[-1])
        return self.routers[-1]

    def announce(self, *workers: FakeWorker, router: Router | None = None) -> None:
        """Tell a router, by default the first, that these are all the workers there are."""
        self._versions += 1
        members = Membership(self._versions, tuple(worker.entry for worker in workers))
        (router or self.routers[0]).set_members(members)

    def kill(self, worker: FakeWorker) -> None:
        worker.dead = True
        self.excused.append(worker)


def spec(
    session_id: str,
    plan: Plan = OFF,
    *,
    seed: int = 0,
    prompt: Iterable[int] = (1, 2, 3),
    max_tokens: int = 24,
    stop_ids: Iterable[int] = (),
) -> SessionSpec:
    """A session; the seed alone tells one output from another."""
    tokens = tuple(prompt)
    sampling = SamplingSpec(SamplingParams(), seed, 0, len(tokens))
    return SessionSpec(session_id, tokens, sampling, max_tokens, frozenset(stop_ids), plan)


def plain(session: SessionSpec) -> list[int]:
    """The oracle: the full model alone, token by token."""
    full = FakeEngine()
    tokens = list(session.tokens)
    while len(tokens) < session.sampling.prompt_len + session.max_tokens:
        tokens.append(full.choose(tokens, session.sampling.seed))
        if tokens[-1] in session.stop_ids:
            break
    return tokens[session.sampling.prompt_len :]


class Refused(Exception):  # noqa: N818 - a refusal, not a fault
    """The router refused; `args[0]` is the Refusal."""


class Answer:
    """What a client saw of one session."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []

    def take(self, commit: Commit) -> None:
        assert self.finish is None, "a commit after the last one"
        assert len(commit.tokens) == len(commit.tiers) > 0
        self.commits.append(commit)

    @property
    def tokens(self) -> list[int]:
        return [token for commit in self.commits for token in commit.tokens]

    @property
    def finish(self) -> FinishReason | None:
        return self.commits[-1].finish if self.commits else None


async def answers(router: Router, *specs: SessionSpec) -> list[Answer]:
    """One request with these choices, read to its end."""
    seen = [Answer() for _ in specs]
    request = GenerateRequest(specs[0].session_id, specs)
    # The timeout is real time and only ends a test that would hang: it uses `call_at`.
    async with asyncio.timeout(20), aclosing(router.generate(request)) as outputs:
        async for batch in outputs:
            for output in batch:
                if isinstance(output, Refusal):
                    raise Refused(output)
                seen[output[0]].take(output[1])
    assert all(answer.finish for answer in seen), "the stream ended before its sessions"
    return seen


async def answer(router: Router, session: SessionSpec) -> list[int]:
    """The tokens of a request with one choice."""
    return (await answers(router, session))[0].tokens
