"""What /ready says, as values for people and scripts. It knows the keys of /ready, and takes
what an older or a half-started server does not tell as None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Worker:
    """`device` is the card's name where one is known; `util_of`: gpu or step loop; `health`: ok,
    or what is wrong."""

    worker_id: str
    pool: str
    tiers: tuple[str, ...]
    device: str
    util_frac: float | None
    util_of: str | None
    sessions: int
    waiting: int
    in_flight: int
    late: int
    steps: int
    step_s: float | None
    hop_s: float | None
    health: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A worker that is wanted and does not run. `placed`: it has a process, and loads."""

    worker_id: str
    placed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Pool:
    """`price`: of a second, 1 where nobody waits; `queue_s`: that work waits for its step."""

    name: str
    wanted: int
    running: int
    missing: tuple[Missing, ...]
    util_frac: float | None = None
    kv_frac: float | None = None
    sessions: int | None = None
    waiting: int | None = None
    queue_s: float | None = None
    step_s: float | None = None
    price: float | None = None
    moved_sessions: int | None = None
    late_steps: int | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """The gate's `level` of `levels`, and the upper `bound` on the disagreement."""

    level: int
    levels: int
    rows: int
    disagreements: int
    bound: float
    epsilon: float


@dataclass(frozen=True, slots=True)
class Costs:
    """Of all sessions together, since the router began; `kept_frac`: drafted tokens committed as
    drafted, of those judged."""

    tokens: int
    rounds: int
    draft_tokens: int
    kept_frac: float | None
    full_rows_per_token: float | None
    full_passes_per_token: float | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """One look at a server, by one of its routers. `plan`: of mode auto, in force; `rounds`: of
    mode auto by plan and reason; `token_s`: predicted seconds a token by plan."""

    state: str
    why: str
    tiers: dict[str, bool]
    running: int | None
    queued: int | None
    steps_in_flight: int | None
    plan: str | None
    rounds: dict[str, int]
    token_s: dict[str, float]
    costs: Costs | None
    audit: Audit | None
    pools: tuple[Pool, ...]
    workers: tuple[Worker, ...]

    @property
    def missing_tiers(self) -> list[str]:
        """Tiers that no worker hosts."""
        return [tier for tier, is_here in self.tiers.items() if not is_here]


def fleet_of(status: Mapping[str, Any]) -> Fleet:
    """The body of /ready. KeyError, TypeError or AttributeError where it is not one of ours."""
    auto = status.get("auto") or {}
    return Fleet(
        state=status["status"],
        why=status.get("why", ""),
        tiers=dict(status["tiers"]),
        running=status.get("running"),
        queued=status.get("queued"),
        steps_in_flight=status.get("steps_in_flight"),
        plan=auto.get("in_force"),
        rounds=dict(auto.get("rounds") or {}),
        token_s=dict(auto.get("token_s") or {}),
        costs=_costs(status.get("costs")),
        audit=_audit(status.get("audit")),
        pools=tuple(_pool(pool) for pool in status["pools"]),
        workers=tuple(_worker(worker) for worker in status["workers"]),
    )


def _worker(told: Mapping[str, Any]) -> Worker:
    probe = told.get("probe") or {}
    cards = {str(card["name"]): None for card in probe.get("cards", ()) if card.get("name")}
    return Worker(
        worker_id=told["worker_id"],
        pool=told["pool"],
        tiers=tuple(told["tiers"]),
        device=", ".join(cards) or told.get("device", ""),
        util_frac=probe.get("util_mean_frac"),
        util_of=probe.get("util_of"),
        sessions=told.get("sessions", 0),
        waiting=told.get("waiting", 0),
        in_flight=told.get("in_flight", 0),
        late=told.get("late", 0),
        steps=told.get("steps", 0),
        step_s=told.get("step_s"),
        hop_s=told.get("hop_s"),
        health=_health(told, probe),
    )


def _health(told: Mapping[str, Any], probe: Mapping[str, Any]) -> str:
    """The worst first: one word, or several where several hold."""
    words = [f"{told['late']} late"] if told.get("late") else []
    words += [word for word in ("draining", "slow") if told.get(word)]
    cards = probe.get("cards", ())
    held = dict.fromkeys(why for card in cards for why in card.get("throttle_reasons") or ())
    return ", ".join([*words, *held]) or "ok"


def _pool(told: Mapping[str, Any]) -> Pool:
    missing = tuple(Missing(m["worker_id"], m["placed"], m["why"]) for m in told["missing"])
    names = ("util_frac", "kv_frac", "sessions", "waiting", "queue_s", "step_s", "price")
    seen = {name: told.get(name) for name in (*names, "moved_sessions", "late_steps")}
    seen["step_s"] = seen["step_s"] or None  # 0 of a pool that nobody uses: nothing was seen
    return Pool(told["name"], told["wanted"], told["running"], missing, **seen)


def _audit(told: Mapping[str, Any] | None) -> Audit | None:
    if told is None:
        return None
    names = ("level", "levels", "rows", "disagreements", "bound", "epsilon")
    return Audit(*(told[name] for name in names))


def _costs(told: Mapping[str, Any] | None) -> Costs | None:
    if told is None:
        return None
    tokens = told["from_draft"] + told["from_slim"] + told["from_full"]
    judged = told["draft_judged"]
    return Costs(
        tokens=tokens,
        rounds=told["rounds"],
        draft_tokens=told["draft_tokens"],
        kept_frac=told["from_draft"] / judged if judged else None,
        full_rows_per_token=told["full_rows"] / tokens if tokens else None,
        full_passes_per_token=told["full_passes"] / tokens if tokens else None,
    )
