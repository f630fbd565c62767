"""Rounds inside one worker: where the tiers that propose sit beside the full one, a round takes
no call but the one that asks for several of them.

It knows engines by their seam, blocks as `actors.screening` makes them, and exact plans alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from actors.engine.seam import Context, Engine, Extend, Row
from actors.screening import Cut, propose
from policies.acceptance import accepted_len
from policies.vocabulary import Tier, TokenLogprobs
from policies.work import ReplyStatus, RoundCounts, WorkItem, WorkKind, WorkReply


@dataclass(slots=True)
class Rounds:
    """One ROUNDS item under way. `block`: the reply to the proposal that full is to judge."""

    item: WorkItem
    context: Context
    block: WorkReply | None = None
    tokens: list[int] = field(default_factory=list)
    tiers: list[Tier] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    done: list[RoundCounts] = field(default_factory=list)
    slim_rows: int = 0
    slim_passes: int = 0

    @property
    def open(self) -> bool:
        """Whether another round is wanted."""
        ended = bool(self.tokens) and self.tokens[-1] in self.context.stop_ids
        room = self.item.num_tokens - len(self.tokens)
        return len(self.done) < self.item.num_rounds and room > 0 and not ended

    def scoring(self) -> Extend:
        """What full is asked: its choices at each id of the block and behind it."""
        assert self.block is not None
        rows = len(self.block.tokens) + 1
        return Extend(
            self.context, len(self.context.tokens), rows, num_logprobs=self.item.num_logprobs
        )

    def take(self, rows: Sequence[Row], cut: Cut) -> None:
        """Full's verdict on the block ends the round: what equals its choices stays, and its
        next choice."""
        block = self.block
        assert block is not None
        chosen = [row.chosen for row in rows]
        kept = accepted_len(block.tokens, chosen)
        cut(self.context, len(self.context.tokens) - len(block.tokens) + kept)
        # A block ends with its first stop id: behind one that is kept there is nothing to say.
        stopped = kept > 0 and block.tokens[kept - 1] in self.context.stop_ids
        count = kept if stopped else kept + 1
        if not stopped:
            self.context.tokens.append(chosen[kept])
        self.tokens += chosen[:count]
        self.tiers += [*block.tiers[:kept], Tier.FULL][:count]
        self.logprobs += [row.logprobs for row in rows[:count] if row.logprobs is not None]
        self.slim_rows += block.slim_rows
        self.slim_passes += block.slim_passes
        screened = block.tiers.count(Tier.DRAFT) if block.slim_passes else 0
        drafted = block.draft_asked, block.draft_tokens, block.draft_judged, screened
        self.done.append(RoundCounts(len(block.tokens), kept, *drafted))
        self.block = None

    def reply(self) -> WorkReply:
        """The answer to the item."""
        return WorkReply(
            self.item.session_id,
            self.item.ticket,
            ReplyStatus.OK,
            held=len(self.context.tokens),
            tokens=tuple(self.tokens),
            tiers=tuple(self.tiers),
            logprobs=tuple(self.logprobs),
            rounds=tuple(self.done),
            draft_asked=sum(r.asked for r in self.done),
            draft_tokens=sum(r.drafted for r in self.done),
            draft_judged=sum(r.judged for r in self.done),
            slim_rows=self.slim_rows,
            slim_passes=self.slim_passes,
            full_rows=sum(r.block + 1 for r in self.done),
            full_passes=len(self.done),
        )


def propose_blocks(engines: Mapping[Tier, Engine], going: Sequence[Rounds], cut: Cut) -> None:
    """Make the blocks of the next round of all of them, side by side."""
    asked = [(_proposal(rounds), rounds.context) for rounds in going]
    made = propose(engines, asked, cut)
    for rounds, (item, _) in zip(going, asked, strict=True):
        rounds.block = made[id(item)]


def play_on(engines: Mapping[Tier, Engine], going: Sequence[Rounds], cut: Cut) -> None:
    """Whole rounds until each has what it asked for."""
    while going := [rounds for rounds in going if rounds.open]:
        propose_blocks(engines, going, cut)
        answers = engines[Tier.FULL].score([rounds.scoring() for rounds in going])
        for rounds, rows in zip(going, answers, strict=True):
            rounds.take(rows, cut)


def _proposal(rounds: Rounds) -> WorkItem:
    # Full's own token ends the round: it takes the last place there is.
    room = rounds.item.num_tokens - len(rounds.tokens) - 1
    count = min(rounds.item.plan.block_len, room)
    return replace(rounds.item, kind=WorkKind.PROPOSE, num_tokens=count)
