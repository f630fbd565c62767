"""A simulated worker: what a step of it answers, and how long it takes.

It holds lengths instead of ids, and its models are draws. What it does per item is what
`actors/tiers.py` and `actors/screening.py` do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from actors.messages import StepReply, StepRequest
from cluster.simulate.luck import Acceptance
from cluster.simulate.times import Times
from policies.estimates import TierTiming
from policies.vocabulary import PlanKind, Tier
from policies.work import ReplyStatus, WorkItem, WorkKind, WorkReply


@dataclass(slots=True)
class Held:
    """A session here: ids held, and up to where each tier has computed them."""

    length: int = 0
    computed: dict[Tier, int] = field(default_factory=dict)

    def cut(self, length: int) -> None:
        """Hold no more than so many."""
        if length < self.length:
            self.length = length
            for tier, upto in self.computed.items():
                self.computed[tier] = min(upto, length)


@dataclass(slots=True)
class _Spent:
    """Of one tier in one step."""

    seconds: float = 0.0
    forwards: int = 0
    rows: int = 0


@dataclass(slots=True)
class _Block:
    """A block in the making."""

    item: WorkItem
    held: Held
    tiers: list[Tier] = field(default_factory=list)
    asked: int = 0
    drafted: int = 0
    judged: int = 0
    rows: int = 0
    passes: int = 0

    @property
    def room(self) -> int:
        return self.item.num_tokens - len(self.tiers)


class SimWorker:
    """`models`: its tiers that run a model (prompt lookup runs none); `capacity` is in tokens of
    context. `free_at`: when the steps sent so far are done."""

    def __init__(
        self,
        models: frozenset[Tier],
        times: Times,
        luck: Acceptance,
        capacity: float,
        rng: random.Random,
    ) -> None:
        self._models, self._times, self._luck, self._rng = models, times, luck, rng
        self._capacity = capacity
        self._held: dict[str, Held] = {}
        self._tokens = 0
        self.free_at = 0.0
        self.busy_s = 0.0
        self.item_s = 0.0
        self.full_rows = 0
        self.evicted = 0

    @property
    def kv_frac(self) -> float:
        """Share of the room for keys and values that is taken."""
        return self._tokens / self._capacity

    @property
    def num_sessions(self) -> int:
        """Held."""
        return len(self._held)

    def prefill_s(self, tiers: Sequence[Tier], rows: int) -> float:
        """Seconds to compute so many rows of one session."""
        return sum(self._times.forward_s(tier, 1, rows, rows) for tier in tiers)

    def step(self, request: StepRequest) -> StepReply:
        """Do all items of one call; replies in their order."""
        for session_id in request.release:
            self._forget(session_id)
        spent: dict[Tier, _Spent] = {}
        replies: dict[int, WorkReply] = {}
        scored: list[tuple[WorkItem, Held]] = []
        blocks: list[_Block] = []
        for item in request.items:
            held = self._reconcile(item)
            if held is None:
                replies[id(item)] = WorkReply(item.session_id, item.ticket, ReplyStatus.NEED_PREFIX)
            elif item.kind is WorkKind.PROPOSE:
                blocks.append(_Block(item, held))
            else:
                scored.append((item, held))
        replies |= self._score(scored, spent)
        replies |= self._propose(blocks, spent)
        self._make_room()
        busy_s = sum(each.seconds for each in spent.values())
        self.busy_s += busy_s
        self.item_s += busy_s * len(request.items)
        timings = tuple(
            TierTiming(tier, each.seconds, each.forwards, each.rows) for tier, each in spent.items()
        )
        return StepReply(tuple(replies[id(item)] for item in request.items), busy_s, timings)

    def _reconcile(self, item: WorkItem) -> Held | None:
        held = self._held.pop(item.session_id, None)
        if held is None:
            if item.open is None:
                return None
            held = Held()
        if held.length < item.start:
            self._tokens -= held.length
            return None
        self._held[item.session_id] = held  # the last used stands last
        before = held.length
        held.cut(item.start)
        held.length += len(item.tokens)
        self._tokens += held.length - before
        return held

    def _forget(self, session_id: str) -> None:
        if (held := self._held.pop(session_id, None)) is not None:
            self._tokens -= held.length

    def _make_room(self) -> None:
        """The longest unused go first; the last one stays whatever it takes."""
        while self._tokens > self._capacity and len(self._held) > 1:
            self._forget(next(iter(self._held)))
            self.evicted += 1

    def _grow(self, held: Held, count: int) -> None:
        held.length += count
        self._tokens += count

    def _forward(
        self, spent: dict[Tier, _Spent], tier: Tier, rows: int, held: Sequence[Held]
    ) -> None:
        context = sum(each.length for each in held)
        each = spent.setdefault(tier, _Spent())
        each.seconds += self._times.forward_s(tier, len(held), rows, context)
        each.forwards += 1
        each.rows += rows

    def _catch_up(self, tier: Tier, held: Held) -> int:
        """Rows that a tier has to compute to be up to date, one at least."""
        rows = max(held.length - held.computed.get(tier, 0), 1)
        held.computed[tier] = held.length
        return rows

    def _score(
        self, items: Sequence[tuple[WorkItem, Held]], spent: dict[Tier, _Spent]
    ) -> dict[int, WorkReply]:
        if not items:
            return {}
        extends: dict[Tier, list[Held]] = {}
        for item, held in items:
            proposes = item.kind is WorkKind.EXTEND and Tier.FULL not in self._models
            for tier in item.plan.kind.tiers & self._models if proposes else (Tier.FULL,):
                extends.setdefault(tier, []).append(held)
        for tier, group in extends.items():
            self._forward(spent, tier, sum(self._catch_up(tier, held) for held in group), group)
        self._decode_on(items, spent)
        return {id(item): self._chosen(item, held) for item, held in items}

    def _decode_on(self, items: Sequence[tuple[WorkItem, Held]], spent: dict[Tier, _Spent]) -> None:
        going = [(item, held) for item, held in items if item.kind is WorkKind.DECODE]
        done = 1
        while going := [(item, held) for item, held in going if item.num_tokens > done]:
            for _, held in going:
                self._grow(held, 1)
                held.computed[Tier.FULL] = held.length
            self._forward(spent, Tier.FULL, len(going), [held for _, held in going])
            done += 1

    def _chosen(self, item: WorkItem, held: Held) -> WorkReply:
        block = item.num_tokens if item.kind is WorkKind.VERIFY else 0
        if item.kind is WorkKind.EXTEND:
            tokens: tuple[int, ...] = ()
        elif item.kind is WorkKind.DECODE:
            tokens = verdict(item.num_tokens, item.num_tokens)[:-1]
        else:
            screened = item.plan.kind is PlanKind.THREE_TIER
            odds = self._luck.slim_full if screened else self._luck.draft_full
            tokens = verdict(block, odds.kept(block, self._rng.random()))
        self.full_rows += len(tokens)
        return WorkReply(
            item.session_id,
            item.ticket,
            ReplyStatus.OK,
            held=held.length,
            tokens=tokens,
            tiers=(Tier.FULL,) * len(tokens),
            full_rows=len(tokens),
            full_passes=1 if block else len(tokens),
        )

    def _propose(self, blocks: Sequence[_Block], spent: dict[Tier, _Spent]) -> dict[int, WorkReply]:
        going = [block for block in blocks if block.room > 0]
        while going:
            drafted = self._draft(going, spent)
            judged = [
                (block, count)
                for block, count in zip(going, drafted, strict=True)
                if Tier.SLIM in block.item.plan.kind.tiers
            ]
            if judged:
                self._screen(judged, spent)
            going = [block for block, _ in judged if block.room > 0]
        return {id(block.item): _proposed(block) for block in blocks}

    def _draft(self, blocks: Sequence[_Block], spent: dict[Tier, _Spent]) -> list[int]:
        """Tokens of each one's draft, side by side."""
        asked = [min(block.item.plan.gamma, block.room) for block in blocks]
        drafted = [self._luck.drafted(count, self._rng) for count in asked]
        if (lookup_s := self._times.lookup_s()) > 0:
            spent.setdefault(Tier.DRAFT, _Spent()).seconds += lookup_s * len(blocks)
        for done in range(max(drafted) if Tier.DRAFT in self._models else 0):
            held = [b.held for b, count in zip(blocks, drafted, strict=True) if count > done]
            rows = sum(self._catch_up(Tier.DRAFT, each) for each in held) if not done else len(held)
            self._forward(spent, Tier.DRAFT, rows, held)
        for block, count, wanted in zip(blocks, drafted, asked, strict=True):
            block.asked += wanted
            block.drafted += count
            if Tier.SLIM not in block.item.plan.kind.tiers:
                block.tiers += [Tier.DRAFT] * count
                self._grow(block.held, count)
                block.held.computed[Tier.DRAFT] = block.held.length
        return drafted

    def _screen(self, judged: Sequence[tuple[_Block, int]], spent: dict[Tier, _Spent]) -> None:
        """One pass of slim; it keeps what it agrees with and adds its own token."""
        rows = sum(self._catch_up(Tier.SLIM, block.held) - 1 for block, _ in judged)
        for block, count in judged:
            scored = count + (count < block.room)
            rows += scored
            block.rows += scored
            block.passes += 1
            kept = self._luck.draft_slim.kept(count, self._rng.random())
            block.judged += min(kept + 1, count)
            own = kept < scored
            block.tiers += [Tier.DRAFT] * kept + [Tier.SLIM] * own
            self._grow(block.held, kept + own)
            # Both have computed what was kept; slim's own token is new to both.
            block.held.computed |= dict.fromkeys((Tier.DRAFT, Tier.SLIM), block.held.length - own)
        self._forward(spent, Tier.SLIM, rows, [block.held for block, _ in judged])


def _proposed(block: _Block) -> WorkReply:
    return WorkReply(
        block.item.session_id,
        block.item.ticket,
        ReplyStatus.OK,
        held=block.held.length,
        tokens=agreed(len(block.tiers)),
        tiers=tuple(block.tiers),
        draft_asked=block.asked,
        draft_tokens=block.drafted,
        draft_judged=block.judged,
        slim_rows=block.rows,
        slim_passes=block.passes,
    )


@cache
def agreed(length: int) -> tuple[int, ...]:
    """A block: all its tokens are 1."""
    return (1,) * length


@cache
def verdict(length: int, kept: int) -> tuple[int, ...]:
    """What full chooses at each place of a block of which it keeps so many, and behind it."""
    return (1,) * kept + (0,) * (length + 1 - kept)
