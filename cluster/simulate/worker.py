"""A simulated worker: what a step of it answers, and how long it takes.

It holds lengths instead of ids, and its models are luck. What it does per item is what
`actors/tiers.py` and `actors/inside.py` do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from actors.messages import StepReply, StepRequest
from cluster.simulate.blocks import Block, Proposer, agreed
from cluster.simulate.forwards import Forwards
from cluster.simulate.held import Held, Memory
from cluster.simulate.inside import Inside
from cluster.simulate.luck import Luck
from cluster.simulate.times import Times
from policies.evidence import Rate
from policies.vocabulary import PlanKind, Tier
from policies.work import ReplyStatus, WorkItem, WorkKind, WorkReply


class SimWorker:
    """`models`: its tiers that run a model (prompt lookup runs none); `capacity` is in tokens of
    context. `free_at`: when the steps sent so far are done."""

    def __init__(
        self,
        models: frozenset[Tier],
        times: Times,
        luck: Luck,
        capacity: float,
        rng: random.Random,
    ) -> None:
        self._models, self._times, self._luck, self._rng = models, times, luck, rng
        self.memory = Memory(capacity)
        self._proposer = Proposer(luck, self.memory, rng)
        self.free_at = 0.0
        self.busy_s = 0.0
        self.item_s = 0.0
        self.full_rows = 0

    def prefill_s(self, tiers: Sequence[Tier], rows: int) -> float:
        """Seconds to compute so many rows of one session."""
        return sum(self._times.forward_s(tier, 1, rows, rows) for tier in tiers)

    def step(self, request: StepRequest) -> StepReply:
        """Do all items of one call; replies in their order."""
        for session_id in request.release:
            self.memory.forget(session_id)
        forwards = Forwards(self._models, self._times)
        replies: dict[int, WorkReply] = {}
        scored: list[tuple[WorkItem, Held]] = []
        blocks: list[tuple[WorkItem, Block]] = []
        inside: list[Inside] = []
        for item in request.items:
            held = self.memory.take(item)
            if held is None:
                replies[id(item)] = WorkReply(item.session_id, item.ticket, ReplyStatus.NEED_PREFIX)
            elif item.kind is WorkKind.PROPOSE:
                blocks.append((item, Block(item.plan, item.num_tokens, held)))
            elif item.kind is WorkKind.ROUNDS:
                inside.append(Inside(item, held))
            else:
                scored.append((item, held))
        self._propose(inside, forwards)
        replies |= self._score(scored, inside, forwards)
        self._play_on(inside, forwards)
        replies |= {id(rounds.item): rounds.reply() for rounds in inside}
        self._proposer.make([block for _, block in blocks], forwards)
        replies |= {id(item): block.reply(item) for item, block in blocks}
        self.memory.make_room()
        busy_s = forwards.busy_s
        self.busy_s += busy_s
        self.item_s += busy_s * len(request.items)
        ordered = tuple([replies[id(item)] for item in request.items])
        return StepReply(ordered, busy_s, forwards.timings())

    def _score(
        self,
        items: Sequence[tuple[WorkItem, Held]],
        inside: Sequence[Inside],
        forwards: Forwards,
    ) -> dict[int, WorkReply]:
        """One pass over all of them, the first of the rounds inside included; then the rest of
        the decoding."""
        extends: dict[Tier, list[Held]] = {}
        for item, held in items:
            proposes = item.kind is WorkKind.EXTEND and Tier.FULL not in self._models
            for tier in item.plan.kind.tiers & self._models if proposes else (Tier.FULL,):
                extends.setdefault(tier, []).append(held)
        for rounds in inside:
            extends.setdefault(Tier.FULL, []).append(rounds.held)
        for tier, group in extends.items():
            forwards.run(tier, sum([held.catch_up(tier) for held in group]), group)
        self._judge(inside)
        self._decode_on(items, forwards)
        return {id(item): self._chosen(item, held) for item, held in items}

    def _decode_on(self, items: Sequence[tuple[WorkItem, Held]], forwards: Forwards) -> None:
        going = [(item, held) for item, held in items if item.kind is WorkKind.DECODE]
        done = 1
        while going := [(item, held) for item, held in going if item.num_tokens > done]:
            for _, held in going:
                self.memory.grow(held, 1)
            group = [held for _, held in going]
            forwards.run(Tier.FULL, sum([held.catch_up(Tier.FULL) for held in group]), group)
            done += 1

    def _chosen(self, item: WorkItem, held: Held) -> WorkReply:
        block = item.num_tokens if item.kind is WorkKind.VERIFY else 0
        if item.kind is WorkKind.EXTEND:
            tokens: tuple[int, ...] = ()
        elif item.kind is WorkKind.DECODE:
            tokens = agreed(item.num_tokens)
        else:
            tokens = verdict(block, self._kept(item, held, held.place - block, block))
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

    def _kept(self, item: WorkItem, held: Held, place: int, length: int) -> int:
        """Of a block that begins at `place`."""
        screened = item.plan.kind is PlanKind.THREE_TIER
        rate = Rate.SLIM_FULL if screened else Rate.DRAFT_FULL
        return self._luck.kept(rate, held.number, place, length, self._rng)

    def _propose(self, inside: Sequence[Inside], forwards: Forwards) -> None:
        self._proposer.make([rounds.propose() for rounds in inside], forwards)

    def _judge(self, inside: Sequence[Inside]) -> None:
        """What full's pass said of the blocks of the rounds."""
        for rounds in inside:
            length = rounds.block_len
            place = rounds.held.place - length
            kept = self._kept(rounds.item, rounds.held, place, length)
            self.memory.cut(rounds.held, rounds.held.length - length + kept)
            self.memory.grow(rounds.held, 1)
            rounds.take(kept)
            self.full_rows += length + 1

    def _play_on(self, inside: Sequence[Inside], forwards: Forwards) -> None:
        """Whole rounds until each has what it asked for."""
        while inside := [rounds for rounds in inside if rounds.open]:
            self._propose(inside, forwards)
            group = [rounds.held for rounds in inside]
            forwards.run(Tier.FULL, sum([held.catch_up(Tier.FULL) for held in group]), group)
            self._judge(inside)


@cache
def verdict(length: int, kept: int) -> tuple[int, ...]:
    """What full chooses at each place of a block of which it keeps so many, and behind it."""
    return (1,) * kept + (0,) * (length + 1 - kept)
