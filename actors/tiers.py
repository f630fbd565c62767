"""What one worker holds and does in a step: contexts by session, engines by tier.

It knows engines by their seam and work items by their type; no Ray, no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from actors.engine.seam import Context, Engine, EngineStats, Extend, Row
from actors.engine.timed import Timed
from actors.inside import Rounds, play_on, propose_blocks
from actors.messages import StepRequest
from actors.screening import propose
from policies.estimates import TierTiming
from policies.session import prefix_crc
from policies.vocabulary import PlanKind, Tier
from policies.work import Audited, ReplyStatus, WorkItem, WorkKind, WorkReply


class TierHost:
    """The tiers of one worker. `clock` gives seconds; idle contexts are dropped by age."""

    def __init__(
        self,
        engines: Mapping[Tier, Engine],
        clock: Callable[[], float],
        idle_timeout_s: float = 120.0,
    ) -> None:
        self._engines = {tier: Timed(tier, engine, clock) for tier, engine in engines.items()}
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
        inside = [Rounds(item, context) for item, context in held if item.kind is WorkKind.ROUNDS]
        propose_blocks(self._engines, inside, self._cut)
        replies.update(self._extend_and_choose(held, inside))
        play_on(self._engines, inside, self._cut)
        replies.update({id(rounds.item): rounds.reply() for rounds in inside})
        asked = [(item, context) for item, context in held if item.kind is WorkKind.PROPOSE]
        replies.update(propose(self._engines, asked, self._cut))
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

    def take_timings(self) -> tuple[TierTiming, ...]:
        """What each tier has computed since the last time."""
        taken = (engine.take() for engine in self._engines.values())
        return tuple(timing for timing in taken if timing is not None)

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

    def _extend_and_choose(
        self, held: Sequence[tuple[WorkItem, Context]], inside: Sequence[Rounds]
    ) -> dict[int, WorkReply]:
        """EXTEND for the tiers of each plan; DECODE, VERIFY, AUDIT and the first of the rounds
        inside in one pass of the full tier, then the rest of the decoding."""
        held = [pair for pair in held if pair[0].kind not in (WorkKind.PROPOSE, WorkKind.ROUNDS)]
        wanted: dict[Tier, list[tuple[WorkItem, Extend]]] = {tier: [] for tier in self._engines}
        for item, context in held:
            for tier in self._tiers_of(item):
                wanted[tier].append((item, _scoring(item, context)))
        for rounds in inside:
            wanted[Tier.FULL].append((rounds.item, rounds.scoring()))
        rows: dict[int, list[Row]] = {}
        for tier, pairs in wanted.items():
            if pairs:
                answers = self._engines[tier].score([extend for _, extend in pairs])
                for (item, _), scored in zip(pairs, answers, strict=True):
                    rows[id(item)] = scored
        looks: dict[int, tuple[Audited, ...]] = {}
        for rounds in inside:
            rounds.take(rows[id(rounds.item)], self._cut)
        for item, context in held:
            scored = rows.get(id(item), [])
            looks[id(item)] = _looks(item, context, scored)
            rows[id(item)] = scored[item.num_audit :]
        self._decode_on(held, rows)
        return {
            id(item): _full_reply(item, context, rows[id(item)], looks[id(item)])
            for item, context in held
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
            asked = [
                Extend(context, len(context.tokens), 1, num_logprobs=item.num_logprobs)
                for item, context in going
            ]
            for (item, context), [row] in zip(
                going, self._engines[Tier.FULL].score(asked), strict=True
            ):
                context.tokens.append(row.chosen)
                rows[id(item)].append(row)

    def _tiers_of(self, item: WorkItem) -> list[Tier]:
        """The tiers here that an item concerns which is not PROPOSE."""
        if item.kind is not WorkKind.EXTEND or Tier.FULL in self._engines:
            return [Tier.FULL]
        return [tier for tier in self._engines if tier in item.plan.kind.tiers]


def _need_prefix(item: WorkItem, context: Context | None) -> WorkReply:
    held = 0 if context is None else len(context.tokens)
    return WorkReply(item.session_id, item.ticket, ReplyStatus.NEED_PREFIX, held=held)


def _scoring(item: WorkItem, context: Context) -> Extend:
    """What an item asks of a tier's first pass. The row that judges an id is the one before."""
    upto = len(context.tokens)
    match item.kind:
        case WorkKind.EXTEND:
            return Extend(context, upto, 0)
        case WorkKind.AUDIT:
            return Extend(context, upto - 1, item.num_audit, judge=True)
        case _:
            block = item.num_tokens if item.kind is WorkKind.VERIFY else 0
            judge = item.num_audit + item.num_shadow > 0 or item.plan.kind is PlanKind.CASCADE
            num_score = item.num_audit + block + 1
            return Extend(context, upto, num_score, judge, item.num_logprobs)


def _looks(item: WorkItem, context: Context, rows: Sequence[Row]) -> tuple[Audited, ...]:
    """What the rows say of the ids that the item asks about; see WorkReply."""
    count = item.num_audit + item.num_shadow
    block = item.num_tokens if item.kind is WorkKind.VERIFY else 0
    first = len(context.tokens) - block - item.num_audit
    looks: list[Audited] = []
    for token, row in zip(context.tokens[first : first + count], rows, strict=False):
        assert row.verdict is not None
        looks.append(Audited(row.chosen == token, row.verdict.logprob))
    return tuple(looks)


def _full_reply(
    item: WorkItem, context: Context, rows: list[Row], looks: tuple[Audited, ...]
) -> WorkReply:
    verify = item.kind is WorkKind.VERIFY
    return WorkReply(
        item.session_id,
        item.ticket,
        ReplyStatus.OK,
        held=len(context.tokens),
        tokens=tuple(row.chosen for row in rows),
        tiers=(Tier.FULL,) * len(rows),
        logprobs=tuple(row.logprobs for row in rows if row.logprobs is not None),
        ratios=_ratios(rows) if verify and item.plan.kind is PlanKind.CASCADE else (),
        audited=looks,
        full_rows=len(rows) + item.num_audit,
        full_passes=1 if verify else len(rows),
    )


def _ratios(rows: Sequence[Row]) -> tuple[float, ...]:
    """Of the block's ids; the row behind the block has none."""
    return tuple(row.verdict.ratio for row in rows if row.verdict is not None)
