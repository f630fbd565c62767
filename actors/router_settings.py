"""Bounds and tastes of one router."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.lookup import Lookup
from policies.balance import BalanceSettings
from policies.deadline import DeadlineSettings
from policies.pressure import PressureSettings
from policies.vocabulary import Tier


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Bounds of one router. `max_running` sessions are served at once, `max_queued` more wait.

    A session without a full worker waits `worker_wait_s`; a step is given up after
    `step_timeout_s`; `decode_tokens`: tokens that plain decoding asks for in one call.
    `lookup`: drafting without a worker. `spare`: the same where the worker that drafts is too
    busy to wait for.
    `share`: part of the slots of full's workers that this router fills at most; None where their
    number does not change.
    `moves`: whether sessions leave a worker where that pays; `pressure`: how busy pools make
    their tiers dear, None not at all; `deadline`: when a step is late, None never.
    """

    max_running: int = 16
    max_queued: int = 64
    max_in_flight: int = 2
    decode_tokens: int = 4
    worker_wait_s: float = 60.0
    step_timeout_s: float = 300.0
    max_failures: int = 3
    lookup: Lookup | None = None
    spare: Lookup | None = None
    share: float | None = None
    moves: bool = True
    balance: BalanceSettings = field(default_factory=BalanceSettings)
    pressure: PressureSettings | None = field(default_factory=PressureSettings)
    deadline: DeadlineSettings | None = field(default_factory=DeadlineSettings)

    @property
    def drafts_here(self) -> frozenset[Tier]:
        """The draft, where prompt lookup in the router is it."""
        return frozenset({Tier.DRAFT} if self.lookup else ())
