"""What one worker holds and does in a step: contexts by session, engines by tier.

It knows engines by their seam and work items by their type; no Ray, no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from actors.engine.seam import Context, Engine, EngineStats, Extend, Propose, Row
from actors.messages import StepRequest
from policies.acceptance import accepted_len
from policies.session import prefix_crc
from policies.vocabulary import Plan, PlanKind, Tier
from policies.work import ReplyStatus, WorkItem, WorkKind, WorkReply


@dataclass(slots=True)
class _Screening:
    """A block in the making: ids behind `base` of the context, one tier each."""

    item: WorkItem
    context: Context
    base: int
    tiers: list[Tier] = field(default_factory=list)
    draft_tokens: int = 0
    slim_rows: int = 0
    slim_passes: int = 0

    @property
    def room(self) -> int:
        return self.item.num_tokens - len(self.tiers)

    @property
    def open(self) -> bool:
        ended = bool(self.tiers) and self.context.tokens[-1] in self.context.stop_ids
        return self.room > 0 and not ended

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
            draft_tokens=self.draft_tokens,
            slim_rows=self.slim_rows,
            slim_passes=self.slim_passes,
        )


class TierHost:
    """The tiers of one worker. `clock` gives seconds; idle contexts are dropped by age."""

    def __init__(
        self,
        engines: Mapping[Tier, Engine],
        clock: Callable[[], float],
        idle_timeout_s: float = 120.0,
    ) -> None:
        self._engines = dict(engines)
        self._clock = clock
        self._idle_timeout_s = idle_timeout_s
        self._contexts: dict[str, Context] = {}
        self._used: dict[str, float] = {}

    def step(self, request: StepRequest) -> tuple[WorkReply, ...]:
        """Do all items of one call; replies in their order."""
        self.release(request.release)
        self._drop_idle()
        replies: dict[int, WorkReply] = {}
        held: list[tuple[WorkItem, Context]] = []
        for item in request.items:
            context = self._reconcile(item)
            if context is None:
                replies[id(item)] = _need_prefix(item, self._contexts.get(item.session_id))
            else:
                held.append((item, context))
        for part in (self._extend_and_choose(held), self._propose(held)):
            replies.update(part)
        return tuple(replies[id(item)] for item in request.items)

    def release(self, session_ids: Iterable[str]) -> None:
        """Forget sessions on every tier; unknown ids are ignored."""
        for session_id in session_ids:
            self._contexts.pop(session_id, None)
            self._used.pop(session_id, None)
            for engine in self._engines.values():
                engine.release(session_id)

    def stats(self) -> dict[Tier, EngineStats]:
        """Per tier."""
        return {tier: engine.stats() for tier, engine in self._engines.items()}

    @property
    def num_sessions(self) -> int:
        """Sessions whose token ids are held."""
        return len(self._contexts)

    def _drop_idle(self) -> None:
        # A router that died cannot release its sessions; age does.
        now = self._clock()
        self.release([s for s, t in self._used.items() if now - t > self._idle_timeout_s])

    def _reconcile(self, item: WorkItem) -> Context | None:
        """Make the context hold exactly the ids of the item; None if its prefix is not here."""
        context = self._contexts.get(item.session_id)
        if item.open is not None:
            assert item.start == 0
            if context is None or context.sampling != item.open.sampling:
                self.release([item.session_id])
                context = Context(item.session_id, item.open.sampling, item.open.stop_ids)
                self._contexts[item.session_id] = context
        elif (
            context is None
            or len(context.tokens) < item.start
            or prefix_crc(context.tokens[: item.start]) != item.prefix_crc
        ):
            return None
        self._used[item.session_id] = self._clock()
        same = item.start
        for held, told in zip(context.tokens[item.start :], item.tokens, strict=False):
            if held != told:
                break
            same += 1
        self._cut(context, same)
        context.tokens += item.tokens[same - item.start :]
        return context

    def _cut(self, context: Context, length: int) -> None:
        if length < len(context.tokens):
            del context.tokens[length:]
            for engine in self._engines.values():
                engine.truncate(context.session_id, length)

    def _extend_and_choose(self, held: Sequence[tuple[WorkItem, Context]]) -> dict[int, WorkReply]:
        """EXTEND for the tiers of each plan; DECODE and VERIFY in one pass of the full tier,
        then the rest of the decoding."""
        wanted: dict[Tier, list[tuple[WorkItem, Extend]]] = {tier: [] for tier in self._engines}
        for item, context in held:
            scores = {WorkKind.DECODE: 1, WorkKind.VERIFY: item.num_tokens + 1, WorkKind.EXTEND: 0}
            if item.kind is not WorkKind.PROPOSE:
                extend = _extend(item, context, scores[item.kind])
                for tier in self._tiers_of(item):
                    wanted[tier].append((item, extend))
        rows: dict[int, list[Row]] = {}
        for tier, pairs in wanted.items():
            if pairs:
                answers = self._engines[tier].score([extend for _, extend in pairs])
                for (item, _), scored in zip(pairs, answers, strict=True):
                    rows[id(item)] = scored
        self._decode_on(held, rows)
        return {
            id(item): _full_reply(item, context, rows.get(id(item), []))
            for item, context in held
            if item.kind is not WorkKind.PROPOSE
        }

    def _decode_on(
        self, held: Sequence[tuple[WorkItem, Context]], rows: dict[int, list[Row]]
    ) -> None:
        """Tokens after the first of each DECODE item, side by side; extends `rows`."""
        going = [(item, context) for item, context in held if item.kind is WorkKind.DECODE]
        for item, context in going:
            context.tokens.append(rows[id(item)][0].chosen)
        while going := [
            (item, context)
            for item, context in going
            if len(rows[id(item)]) < item.num_tokens and context.tokens[-1] not in context.stop_ids
        ]:
            asked = [_extend(item, context, 1) for item, context in going]
            for (item, context), [row] in zip(
                going, self._engines[Tier.FULL].score(asked), strict=True
            ):
                context.tokens.append(row.chosen)
                rows[id(item)].append(row)

    def _tiers_of(self, item: WorkItem) -> list[Tier]:
        """The tiers here that an EXTEND, DECODE or VERIFY concerns."""
        if item.kind is not WorkKind.EXTEND or Tier.FULL in self._engines:
            return [Tier.FULL]
        return [t for t in _proposing_tiers(item.plan) if t in self._engines]

    def _propose(self, held: Sequence[tuple[WorkItem, Context]]) -> dict[int, WorkReply]:
        """Blocks for all PROPOSE items, side by side: the draft proposes gamma tokens, slim
        keeps what it agrees with and appends its own, until the block is full."""
        blocks = [
            _Screening(item, context, len(context.tokens))
            for item, context in held
            if item.kind is WorkKind.PROPOSE
        ]
        going = [b for b in blocks if b.open]
        while going:
            drafted = self._draft(going)
            screened = [
                (b, ids)
                for b, ids in zip(going, drafted, strict=True)
                if b.item.plan.kind is PlanKind.THREE_TIER
            ]
            if screened:
                self._screen(screened)
            # Under two_tier one draft is the block.
            going = [b for b, _ in screened if b.open]
        return {id(b.item): b.reply() for b in blocks}

    def _draft(self, blocks: Sequence[_Screening]) -> list[list[int]]:
        asked = [Propose(b.context, min(b.item.plan.gamma, b.room)) for b in blocks]
        drafted = self._engines[Tier.DRAFT].propose(asked)
        for block, ids in zip(blocks, drafted, strict=True):
            block.draft_tokens += len(ids)
            if block.item.plan.kind is PlanKind.TWO_TIER:
                block.tiers += [Tier.DRAFT] * len(ids)
        return drafted

    def _screen(self, drafted: Sequence[tuple[_Screening, list[int]]]) -> None:
        asked: list[Extend] = []
        for block, ids in drafted:
            # The row behind the last place of the block would be thrown away: leave it out.
            rows = len(ids) + (len(ids) < block.room)
            upto = block.base + len(block.tiers) + rows - 1
            asked.append(Extend(block.context, upto, rows))
            block.slim_rows += rows
            block.slim_passes += 1
        answers = self._engines[Tier.SLIM].extend(asked)
        for (block, ids), chosen in zip(drafted, answers, strict=True):
            start = block.base + len(block.tiers)
            kept = accepted_len(ids, chosen if len(chosen) > len(ids) else [*chosen, -1])
            self._cut(block.context, start + kept)
            block.tiers += [Tier.DRAFT] * kept
            if kept < len(chosen):
                ended = kept > 0 and block.context.tokens[-1] in block.context.stop_ids
                if not ended:
                    block.context.tokens.append(chosen[kept])
                    block.tiers.append(Tier.SLIM)


def _proposing_tiers(plan: Plan) -> tuple[Tier, ...]:
    match plan.kind:
        case PlanKind.OFF:
            return ()
        case PlanKind.TWO_TIER:
            return (Tier.DRAFT,)
        case PlanKind.THREE_TIER:
            return (Tier.DRAFT, Tier.SLIM)


def _need_prefix(item: WorkItem, context: Context | None) -> WorkReply:
    held = 0 if context is None else len(context.tokens)
    return WorkReply(item.session_id, item.ticket, ReplyStatus.NEED_PREFIX, held=held)


def _extend(item: WorkItem, context: Context, num_score: int) -> Extend:
    return Extend(context, len(context.tokens), num_score, num_logprobs=item.num_logprobs)


def _full_reply(item: WorkItem, context: Context, rows: list[Row]) -> WorkReply:
    verify = item.kind is WorkKind.VERIFY
    return WorkReply(
        item.session_id,
        item.ticket,
        ReplyStatus.OK,
        held=len(context.tokens),
        tokens=tuple(row.chosen for row in rows),
        tiers=(Tier.FULL,) * len(rows),
        logprobs=tuple(row.logprobs for row in rows if row.logprobs is not None),
        full_rows=len(rows),
        full_passes=1 if verify else len(rows),
    )
