"""Blocks in the making: what draft and slim of one worker do for PROPOSE items, side by side.

THREE_TIER: slim keeps what equals its own choice. VIA: its gate clears drafted tokens, puts
its own in their place, or leaves them to the full tier. It knows engines by their seam.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from actors.engine.seam import Context, Engine, Extend, Propose, Row
from policies.acceptance import accepted_len
from policies.gates import Region, region
from policies.vocabulary import PlanKind, Tier
from policies.work import ReplyStatus, WorkItem, WorkReply

Cut = Callable[[Context, int], None]
"""Shortens a context, and what the engines hold of it, to a length."""


@dataclass(slots=True)
class Block:
    """One item's block: ids behind `base` of the context, one tier each.

    `cleared` and `shadow` as in WorkReply. `escalated`: the full tier is to judge what stands
    behind the cleared ids.
    """

    item: WorkItem
    context: Context
    base: int
    tiers: list[Tier] = field(default_factory=list)
    cleared: list[float] = field(default_factory=list)
    shadow: list[float] = field(default_factory=list)
    escalated: bool = False
    draft_asked: int = 0
    draft_tokens: int = 0
    draft_judged: int = 0
    slim_rows: int = 0
    slim_passes: int = 0

    @property
    def room(self) -> int:
        return self.item.num_tokens - len(self.tiers)

    @property
    def open(self) -> bool:
        ended = bool(self.tiers) and self.context.tokens[-1] in self.context.stop_ids
        return self.room > 0 and not ended and not self.escalated

    @property
    def end(self) -> int:
        """Where the next drafted id stands."""
        return self.base + len(self.tiers)

    def reply(self) -> WorkReply:
        tokens = tuple(self.context.tokens[self.base :])
        assert len(tokens) == len(self.tiers)
        return WorkReply(
            self.item.session_id,
            self.item.ticket,
            ReplyStatus.OK,
            held=len(self.context.tokens),
            tokens=tokens,
            tiers=tuple(self.tiers),
            cleared=tuple(self.cleared),
            shadow=tuple(self.shadow),
            draft_asked=self.draft_asked,
            draft_tokens=self.draft_tokens,
            draft_judged=self.draft_judged,
            slim_rows=self.slim_rows,
            slim_passes=self.slim_passes,
        )


def propose(
    engines: Mapping[Tier, Engine], asked: Sequence[tuple[WorkItem, Context]], cut: Cut
) -> dict[int, WorkReply]:
    """Replies to PROPOSE items by the item's `id`. The draft proposes gamma tokens, slim
    screens them, until the block is full; under the other plans one draft is the block."""
    blocks = [Block(item, context, len(context.tokens)) for item, context in asked]
    going = [block for block in blocks if block.open]
    while going:
        drafted = _draft(engines[Tier.DRAFT], going)
        judged = [pair for pair in drafted if Tier.SLIM in pair[0].item.plan.kind.tiers]
        if judged:
            _screen(engines[Tier.SLIM], judged, cut)
        going = [block for block, ids in judged if block.open and (ids or not _gated(block))]
    return {id(block.item): block.reply() for block in blocks}


def _gated(block: Block) -> bool:
    return block.item.plan.kind is PlanKind.VIA


def _draft(engine: Engine, blocks: Sequence[Block]) -> list[tuple[Block, list[int]]]:
    asked = [Propose(b.context, min(b.item.plan.gamma, b.room)) for b in blocks]
    drafted = list(zip(blocks, engine.propose(asked), strict=True))
    for (block, ids), request in zip(drafted, asked, strict=True):
        block.draft_asked += request.num_tokens
        block.draft_tokens += len(ids)
        if Tier.SLIM not in block.item.plan.kind.tiers:
            block.tiers += [Tier.DRAFT] * len(ids)
    return drafted


def _screen(engine: Engine, drafted: Sequence[tuple[Block, list[int]]], cut: Cut) -> None:
    """One pass of slim over what was drafted."""
    asked = [_scoring(block, ids) for block, ids in drafted]
    for (block, ids), rows in zip(drafted, engine.score(asked), strict=True):
        if _gated(block):
            _gate(block, ids, rows, cut)
        else:
            _keep(block, ids, [row.chosen for row in rows], cut)


def _scoring(block: Block, ids: Sequence[int]) -> Extend:
    # The row behind the last id gives slim's own token. A gate has no use for it, and behind
    # the last place of a block it would be thrown away.
    rows = len(ids) + (not _gated(block) and len(ids) < block.room)
    block.slim_rows += rows
    block.slim_passes += rows > 0
    return Extend(block.context, block.end + max(rows - 1, 0), rows, judge=_gated(block))


def _keep(block: Block, ids: Sequence[int], chosen: Sequence[int], cut: Cut) -> None:
    """Equality with slim's choice; slim's own token follows what it keeps."""
    kept = accepted_len(ids, chosen if len(chosen) > len(ids) else [*chosen, -1])
    block.draft_judged += min(kept + 1, len(ids))
    cut(block.context, block.end + kept)
    block.tiers += [Tier.DRAFT] * kept
    if kept < len(chosen):
        ended = kept > 0 and block.context.tokens[-1] in block.context.stop_ids
        if not ended:
            block.context.tokens.append(chosen[kept])
            block.tiers.append(Tier.SLIM)


def _gate(block: Block, ids: Sequence[int], rows: Sequence[Row], cut: Cut) -> None:
    """LOSSY: what the plan's gate lets through is committed without the full tier. Whether
    the answer ends is never left to slim: a stop id escalates."""
    gate, stops = block.item.plan.gate, block.context.stop_ids
    assert gate is not None
    for i, (drafted, row) in enumerate(zip(ids, rows, strict=True)):
        assert row.verdict is not None
        verdict = row.verdict
        where = region(gate, verdict.ratio, verdict.margin)
        if where is Region.ESCALATE or drafted in stops or row.chosen in stops:
            block.escalated = True
            block.tiers += [Tier.DRAFT] * (len(ids) - i)
            _cast_shadow(block, ids[i:], rows[i:])
            return
        block.draft_judged += 1
        if where is Region.REPLACE:
            cut(block.context, block.end)
            block.context.tokens.append(row.chosen)
            block.cleared.append(verdict.own_logprob)
            block.tiers.append(Tier.SLIM)
            return
        block.cleared.append(verdict.logprob)
        block.tiers.append(Tier.DRAFT)


def _cast_shadow(block: Block, ids: Sequence[int], rows: Sequence[Row]) -> None:
    """What of the escalated ids the plan's shadow gate would have accepted."""
    if (gate := block.item.plan.shadow) is None:
        return
    for drafted, row in zip(ids, rows, strict=True):
        assert row.verdict is not None
        where = region(gate, row.verdict.ratio, row.verdict.margin)
        if where is not Region.ACCEPT or drafted in block.context.stop_ids:
            return
        block.shadow.append(row.verdict.logprob)
