"""One frame of `top`: what a look says, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from cluster.console.fleet import Audit, Costs, Fleet, Missing, Pool, Worker
from cluster.console.look import Look
from cluster.console.table import Cell, Fitting, coloured, table
from cluster.console.words import NONE, count, decimal, milliseconds, percent

STATES = {"ok": "bold green", "degraded": "bold yellow", "loading": "bold red"}

_POOL_SPARE = ("moved", "price", "step", "KV", "late", "sessions", "queue")
_WORKER_SPARE = ("hop", "waiting", "tiers", "in flight", "device", "step", "sessions")
"""What a narrow terminal goes without, the first first."""


def frame(look: Look, url: str) -> Group:
    """All of it, one part below the other."""
    fleet = look.fleet
    return Group(*above_workers(look, url), workers_table(fleet.workers), *below_workers(fleet))


def above_workers(look: Look, url: str) -> list[RenderableType]:
    """The headline and the pools."""
    headings = ("pool", "workers", "busy", "KV", "sessions", "waiting", "queue", "step", "price")
    headings = (*headings, "moved", "late")
    rows = [_pool_row(pool) for pool in look.fleet.pools]
    return [headline(look, url), Fitting(headings, rows, spare=_POOL_SPARE)]


def workers_table(workers: Sequence[Worker]) -> Fitting:
    """A row for each."""
    headings = ("worker", "tiers", "device", "busy", "sessions", "waiting", "in flight")
    headings = (*headings, "step", "hop", "health")
    return Fitting(headings, [_worker_row(one) for one in workers], left=3, spare=_WORKER_SPARE)


def below_workers(fleet: Fleet) -> list[RenderableType]:
    """What is missing, acceptance, the plan, the audit."""
    return list(_below(fleet))


def headline(look: Look, url: str = "") -> Text:
    """The state, requests, speed and plan on one line."""
    fleet = look.fleet
    line = Text.assemble((fleet.state, STATES.get(fleet.state, "bold")))
    if missing := fleet.missing_tiers:
        line.append(f" (without {', '.join(missing)})")
    if fleet.why:
        line.append(f" ({fleet.why})")
    line.append(f"  {count(fleet.running)} running, {count(fleet.queued)} queued")
    line.append(f"  {decimal(look.tokens_per_s, 1)} tokens/s")
    line.append(f"  plan {fleet.plan or NONE}")
    return line.append(f"  {url}") if url else line


def pools_line(fleet: Fleet) -> str:
    """Each pool's workers and utilisation, in a few words."""
    return "  ".join(
        f"{pool.name} {pool.running}/{pool.wanted} {percent(pool.util_frac)}"
        for pool in fleet.pools
    )


def _below(fleet: Fleet) -> Iterator[RenderableType]:
    if missing := [(pool, one) for pool in fleet.pools for one in pool.missing]:
        yield table(("missing", "pool", "why"), (_missing_row(*row) for row in missing), left=3)
    if fleet.costs is not None:
        yield Text(_costs_line(fleet.costs))
    yield Text(_plan_line(fleet))
    if fleet.audit is not None:
        yield _audit_line(fleet.audit)


def _pool_row(pool: Pool) -> tuple[Cell, ...]:
    here = f"{pool.running}/{pool.wanted}"
    return (
        pool.name,
        here if pool.running >= pool.wanted else coloured(here, "yellow"),
        percent(pool.util_frac),
        percent(pool.kv_frac),
        count(pool.sessions),
        count(pool.waiting),
        milliseconds(pool.queue_s),
        milliseconds(pool.step_s),
        decimal(pool.price),
        count(pool.moved_sessions),
        count(pool.late_steps),
    )


def _worker_row(worker: Worker) -> tuple[Cell, ...]:
    well = worker.health == "ok"
    return (
        worker.worker_id,
        "+".join(worker.tiers),
        worker.device,
        percent(worker.util_frac),
        count(worker.sessions),
        count(worker.waiting),
        count(worker.in_flight),
        milliseconds(worker.step_s),
        milliseconds(worker.hop_s),
        coloured(worker.health, "green" if well else "yellow"),
    )


def _missing_row(pool: Pool, one: Missing) -> tuple[Cell, ...]:
    return (one.worker_id, pool.name, coloured(one.why, "cyan" if one.placed else "yellow"))


def _costs_line(costs: Costs) -> str:
    return (
        f"{costs.tokens:,} tokens in {costs.rounds:,} rounds; of the drafted tokens judged"
        f" {percent(costs.kept_frac)} kept; a token takes"
        f" {decimal(costs.full_passes_per_token)} passes and"
        f" {decimal(costs.full_rows_per_token)} rows of full"
    )


def _plan_line(fleet: Fleet) -> str:
    rounds: dict[str, int] = {}
    for taken, number in fleet.rounds.items():
        plan = taken.partition(":")[0]
        rounds[plan] = rounds.get(plan, 0) + number
    said = ", ".join(f"{plan} {number:,}" for plan, number in rounds.items()) or "none yet"
    predicted = ", ".join(f"{plan} {milliseconds(s)}" for plan, s in fleet.token_s.items())
    return f"rounds of auto: {said}" + (f"; predicted a token: {predicted}" if predicted else "")


def _audit_line(audit: Audit) -> Text:
    line = Text(f"audit of via: level {audit.level} of {audit.levels}")
    line.append(f", {audit.disagreements:,} of {audit.rows:,} tokens differ")
    over = audit.rows > 0 and audit.bound > audit.epsilon
    line.append(f", bound {audit.bound:.4f}", "yellow" if over else "")
    return line.append(f" (epsilon {audit.epsilon:g})")
