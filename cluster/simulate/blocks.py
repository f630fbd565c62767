"""Blocks in the making at a simulated worker, side by side: what `actors/screening.py` does,
with draws for models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from cluster.simulate.forwards import Forwards
from cluster.simulate.held import Held, Memory
from cluster.simulate.luck import Luck
from policies.evidence import Rate
from policies.vocabulary import Plan, Tier
from policies.work import ReplyStatus, WorkItem, WorkReply


@dataclass(slots=True)
class Block:
    """Up to `length` tokens; `tiers` of those that stand."""

    plan: Plan
    length: int
    held: Held
    tiers: list[Tier] = field(default_factory=list)
    asked: int = 0
    drafted: int = 0
    judged: int = 0
    rows: int = 0
    passes: int = 0

    @property
    def room(self) -> int:
        return self.length - len(self.tiers)

    @property
    def screened(self) -> bool:
        return Tier.SLIM in self.plan.kind.tiers

    def reply(self, item: WorkItem) -> WorkReply:
        """To a PROPOSE item."""
        return WorkReply(
            item.session_id,
            item.ticket,
            ReplyStatus.OK,
            held=self.held.length,
            tokens=agreed(len(self.tiers)),
            tiers=tuple(self.tiers),
            draft_asked=self.asked,
            draft_tokens=self.drafted,
            draft_judged=self.judged,
            slim_rows=self.rows,
            slim_passes=self.passes,
        )


@cache
def agreed(length: int) -> tuple[int, ...]:
    """A block: all its tokens are 1."""
    return (1,) * length


class Proposer:
    """Draft and slim of one worker."""

    def __init__(self, luck: Luck, memory: Memory, rng: random.Random) -> None:
        self._luck, self._memory, self._rng = luck, memory, rng

    def make(self, blocks: Sequence[Block], forwards: Forwards) -> None:
        """Fill them all."""
        going = [block for block in blocks if block.room > 0]
        while going:
            drafted = self._draft(going, forwards)
            judged = [pair for pair in zip(going, drafted, strict=True) if pair[0].screened]
            if judged:
                self._screen(judged, forwards)
            going = [block for block, _ in judged if block.room > 0]

    def _draft(self, blocks: Sequence[Block], forwards: Forwards) -> list[int]:
        """Tokens of each one's draft."""
        drafted: list[int] = []
        computed: list[int] = []
        for block in blocks:
            asked = min(block.plan.gamma, block.room)
            held = block.held
            count, found = self._luck.drafted(held.number, held.place, asked)
            block.asked += asked
            block.drafted += count
            drafted.append(count)
            # A model is asked where lookup found less than was wanted, and its first forward
            # catches up.
            computed.append(max(count - found, 1) if found < asked else 0)
        forwards.look_up(len(blocks))
        if Tier.DRAFT in forwards.models:
            self._run(blocks, computed, forwards)
        for block, count, forwarded in zip(blocks, drafted, computed, strict=True):
            if not block.screened:
                block.tiers += [Tier.DRAFT] * count
                self._memory.grow(block.held, count)
                if forwarded:
                    block.held.computed[Tier.DRAFT] = block.held.length
        return drafted

    def _run(self, blocks: Sequence[Block], computed: Sequence[int], forwards: Forwards) -> None:
        for done in range(max(computed)):
            held = [b.held for b, n in zip(blocks, computed, strict=True) if n > done]
            rows = len(held) if done else sum([each.catch_up(Tier.DRAFT) for each in held])
            forwards.run(Tier.DRAFT, rows, held)

    def _screen(self, judged: Sequence[tuple[Block, int]], forwards: Forwards) -> None:
        """One pass of slim; it keeps what it agrees with and adds its own token."""
        rows = sum([block.held.catch_up(Tier.SLIM) - 1 for block, _ in judged])
        for block, count in judged:
            held = block.held
            scored = count + (count < block.room)
            rows += scored
            block.rows += scored
            block.passes += 1
            kept = self._luck.kept(Rate.DRAFT_SLIM, held.number, held.place, count, self._rng)
            block.judged += min(kept + 1, count)
            own = kept < scored
            block.tiers += [Tier.DRAFT] * kept + [Tier.SLIM] * own
            self._memory.grow(held, kept + own)
            # What was kept is computed; slim's own token is new to both.
            held.computed |= dict.fromkeys((Tier.DRAFT, Tier.SLIM), held.length - own)
        forwards.run(Tier.SLIM, rows, [block.held for block, _ in judged])
