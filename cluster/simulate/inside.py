"""Rounds inside one simulated worker: what `actors/inside.py` keeps of them, in lengths."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.simulate.blocks import Block
from cluster.simulate.held import Held
from policies.vocabulary import Tier
from policies.work import ReplyStatus, RoundCounts, WorkItem, WorkReply


@dataclass(slots=True)
class Inside:
    """One ROUNDS item under way."""

    item: WorkItem
    held: Held
    tiers: list[Tier] = field(default_factory=list)
    done: list[RoundCounts] = field(default_factory=list)
    slim_rows: int = 0
    slim_passes: int = 0
    _block: Block | None = None

    @property
    def open(self) -> bool:
        """Whether another round is wanted."""
        return len(self.done) < self.item.num_rounds and len(self.tiers) < self.item.num_tokens

    @property
    def block_len(self) -> int:
        """Of the proposal that full is to judge."""
        assert self._block is not None
        return len(self._block.tiers)

    def propose(self) -> Block:
        """The next round's block, still empty. Full's own token takes the last place."""
        room = self.item.num_tokens - len(self.tiers) - 1
        self._block = Block(self.item.plan, min(self.item.plan.block_len, room), self.held)
        return self._block

    def take(self, kept: int) -> None:
        """Full has kept so many of the block, and added its own token."""
        block = self._block
        assert block is not None
        self.tiers += [*block.tiers[:kept], Tier.FULL]
        self.slim_rows += block.rows
        self.slim_passes += block.passes
        screened = block.tiers.count(Tier.DRAFT) if block.passes else 0
        drafted = block.asked, block.drafted, block.judged, screened
        self.done.append(RoundCounts(len(block.tiers), kept, *drafted))
        self._block = None

    def reply(self) -> WorkReply:
        """The answer to the item."""
        return WorkReply(
            self.item.session_id,
            self.item.ticket,
            ReplyStatus.OK,
            held=self.held.length,
            tokens=(1,) * len(self.tiers),
            tiers=tuple(self.tiers),
            rounds=tuple(self.done),
            draft_asked=sum(r.asked for r in self.done),
            draft_tokens=sum(r.drafted for r in self.done),
            draft_judged=sum(r.judged for r in self.done),
            slim_rows=self.slim_rows,
            slim_passes=self.slim_passes,
            full_rows=sum(r.block + 1 for r in self.done),
            full_passes=len(self.done),
        )
