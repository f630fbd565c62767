"""The typed messages between ingress, router and workers. Token ids only, never text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from actors.engine.seam import EngineStats
from infra.probe.sample import NOT_SAMPLED, ProbeSample
from infra.tracing import Carrier
from policies.estimates import TierTiming
from policies.vocabulary import Commit, SessionSpec, Tier
from policies.work import WorkItem, WorkReply


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One call to a worker: the work of all sessions waiting for it, and sessions to drop.
    `traces`: of the items whose session is traced, by their place, the span to work below."""

    items: tuple[WorkItem, ...]
    release: tuple[str, ...] = ()
    traces: tuple[tuple[int, Carrier], ...] = ()


@dataclass(frozen=True, slots=True)
class StepReply:
    """The replies in the order of the items. `busy_s`: seconds the worker computed, `timings`
    how they fall to its tiers."""

    replies: tuple[WorkReply, ...]
    busy_s: float
    timings: tuple[TierTiming, ...] = ()


@dataclass(frozen=True, slots=True)
class Timed:
    """The steps of a request are to be noted. `came_s`: when it came in, in seconds of the wall
    clock, which is all that two machines share. `told`: commits carry them. `trace`: the span
    that they are traced below, empty where they are not."""

    came_s: float
    told: bool
    trace: Carrier = ()


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Ingress to router: the choices of one request, all of them admitted or none."""

    request_id: str
    sessions: tuple[SessionSpec, ...]
    timed: Timed | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Router to ingress instead of commits: the request ends here.

    overloaded: the queue is full, try again after `retry_after_s`; unavailable: no full
    worker within the bound; internal: a step failed again and again.
    """

    kind: Literal["overloaded", "unavailable", "internal"]
    message: str
    retry_after_s: float = 0.0


Output = tuple[int, Commit] | Refusal
"""Router to ingress: a commit with its session's index in the request, or the end of it all."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker says of itself once it has loaded, and from then on when asked.

    `weight_bytes`: of all its tiers together, shared weights counted once. `probe`: how busy it
    and its device are, as sampled last. `rank_pids`: of a worker that is a
    group, by rank; what is said of memory is then rank 0's share. Since its start: `busy_s`
    seconds of steps, `item_s` those of every item of theirs, `lived_s` of all. `price_per_hour`:
    of the worker, in USD, None where nobody has said.
    """

    worker_id: str
    pool: str
    tiers: tuple[Tier, ...]
    device: str
    threads: int
    pid: int
    slots: int
    slot_tokens: int
    token_budget: int
    row_invariant: bool
    sessions: int
    weight_bytes: int
    engines: dict[Tier, EngineStats]
    probe: ProbeSample = NOT_SAMPLED
    rank_pids: tuple[int, ...] = ()
    busy_s: float = 0.0
    item_s: float = 0.0
    lived_s: float = 0.0
    price_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerEntry:
    """A worker as the registry lists it: how to call it, and its last report. One that is
    `draining` will end: it takes nobody in, and its sessions move on."""

    handle: Any
    report: WorkerReport
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """A worker that its pool wants and that does not serve yet. `placed`: its process has its
    place, or is about to, and loads; else `why` says what is missing, or what ended the one
    before."""

    worker_id: str
    pool: str
    placed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Membership:
    """All live workers, and those that are to be; `version` changes when a worker comes, drains
    or goes."""

    version: int
    workers: tuple[WorkerEntry, ...]
    waiting: tuple[Waiting, ...] = ()
