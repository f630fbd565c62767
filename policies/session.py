"""The session: one running choice of one request as a sans-IO state machine.

It says what work it wants and takes in the replies; it knows no worker but by name, no clock
and no model. Law: under an exact plan it commits what the full tier chose after the committed
prefix; under any plan in order, once, whatever is lost, doubled, late or asked again (DESIGN
section 2).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from policies.acceptance import accept_cascade, accept_exact
from policies.audit import AuditRow
from policies.counting import (
    after_commit,
    after_look,
    after_reply,
    after_rounds,
    after_verification,
    verdicts_on_block,
    verdicts_on_draft,
    verdicts_on_rounds,
)
from policies.evidence import Verdicts
from policies.transitions import TRANSITIONS, Event, State
from policies.unseen import Unseen, UnseenToken, rows_of
from policies.vocabulary import (
    Commit,
    Counters,
    FinishReason,
    Plan,
    PlanKind,
    SessionSpec,
    Tier,
    TokenLogprobs,
)
from policies.work import ReplyStatus, SessionOpen, WorkItem, WorkKind, WorkReply

_FEW = 32
_WORK = {
    State.WAIT_DECODE: WorkKind.DECODE,
    State.WAIT_PROPOSE: WorkKind.PROPOSE,
    State.WAIT_ROUNDS: WorkKind.ROUNDS,
    State.WAIT_VERIFY: WorkKind.VERIFY,
}


def prefix_crc(tokens: Sequence[int], before: int = 0) -> int:
    """CRC-32 of token ids as little-endian int32, behind ids of the CRC-32 `before`."""
    if len(tokens) <= _FEW:  # for a few ids numpy takes longer to begin
        return zlib.crc32(struct.pack(f"<{len(tokens)}i", *tokens), before)
    return zlib.crc32(np.asarray(tokens, dtype="<i4").tobytes(), before)


class Session:
    """The state of one session; `tokens` is the prompt and everything committed.

    `audit_share`: the probability that a span committed without the full tier is audited.
    """

    def __init__(self, spec: SessionSpec, audit_share: float = 0.0) -> None:
        self.spec = spec
        self.plan: Plan = spec.plan
        self.state = State.WAIT_DECODE
        self.tokens: list[int] = list(spec.tokens)
        self.counters = Counters()
        self.why = ""
        self._round = spec.plan, ""
        self.finish: FinishReason | None = None
        self._block: tuple[int, ...] = ()
        self._block_tiers: tuple[Tier, ...] = ()
        self._block_plan = spec.plan
        self._shadow: list[UnseenToken] = []
        self._unseen = Unseen(audit_share, spec.sampling.seed, spec.sampling.choice)
        self._audit: WorkItem | None = None
        self._audited: list[UnseenToken] = []
        self._verdicts: list[Verdicts] = []
        # Up to where the proposing tiers have computed it, by what they have answered; prompt
        # lookup in the router holds nothing and computes nothing.
        self._warm: dict[Tier, int] = {}
        self._proposer: str | None = None
        self._block_from: str | None = None
        # Per worker: how many of `tokens` it is believed to hold. A belief too high costs a
        # NEED_PREFIX, one too low a few ids on the wire; neither changes a token.
        self._known: dict[str, int] = {}
        # Length and CRC-32 of the prefix that an item named last: most name it or a longer one.
        self._named = 0, 0
        self._ticket = 0
        self._in_flight: WorkItem | None = None
        self._worker: str | None = None

    @property
    def session_id(self) -> str:
        """The name that workers know it by."""
        return self.spec.session_id

    @property
    def wants(self) -> WorkKind | None:
        """The kind of step it waits for, or None: in flight or done."""
        return _WORK.get(self.state)

    @property
    def remaining(self) -> int:
        """Tokens that may still be committed."""
        return self.spec.max_tokens - (len(self.tokens) - self.spec.sampling.prompt_len)

    @property
    def workers(self) -> tuple[str, ...]:
        """The workers that may hold something of this session."""
        return tuple(self._known)

    @property
    def ends_round(self) -> bool:
        """Whether the reply that it waits for is to commit: the plan then is the next round's."""
        item = self._in_flight
        ending = (WorkKind.DECODE, WorkKind.VERIFY, WorkKind.ROUNDS)
        return item is not None and item.kind in ending

    def cold_rows(self, tiers: Iterable[Tier]) -> dict[Tier, int]:
        """Rows that each of these tiers would have to compute before it could propose."""
        return {tier: len(self.tokens) - self._warm.get(tier, 0) for tier in tiers}

    def take_verdicts(self) -> list[Verdicts]:
        """What rounds have said of the tiers' agreement since the last time."""
        taken, self._verdicts = self._verdicts, []
        return taken

    def rows_wanted(self, worker: str) -> int:
        """Rows of the full step or chunk that the session would like of this worker next."""
        tail = len(self.tokens) - self._known.get(worker, 0)
        block = self.plan.block_len if self.wants is WorkKind.ROUNDS else len(self._block)
        return max(tail, 1, len(self._unseen)) + block

    def dispatch(self, worker: str, max_rows: int, decode_tokens: int = 1) -> WorkItem:
        """Hand the next work to a worker, at most `max_rows` rows of it (chunked prefill)."""
        kind = self.wants
        assert kind is not None, self.state
        start = min(self._known.get(worker, 0), len(self.tokens) - 1)
        tail = self.tokens[start:]
        count = 0
        if len(tail) + len(self._block) > max_rows and len(tail) > 1:
            kind, tail = WorkKind.EXTEND, tail[: max(1, min(max_rows, len(tail) - 1))]
        elif kind is WorkKind.DECODE:
            # The first token goes out alone: a client waits for it.
            first = len(self.tokens) == len(self.spec.tokens)
            count = 1 if first else min(decode_tokens, self.remaining)
        elif kind is WorkKind.PROPOSE:
            count = min(self.plan.block_len, self.remaining - 1)
        elif kind is WorkKind.ROUNDS:
            count = self.remaining
        else:
            count = len(self._block)
            tail = [*tail, *self._block]
        # Also what went ahead in a chunk: a look that is left out would bend the sample.
        looks = kind in (WorkKind.DECODE, WorkKind.VERIFY)
        audited = len(self._unseen) if looks else 0
        if kind in (WorkKind.DECODE, WorkKind.PROPOSE, WorkKind.ROUNDS):
            self._round = self.plan, self.why
        item = self._item(kind, start, tail, count, audited)
        if kind is WorkKind.ROUNDS:
            item = replace(item, num_rounds=max(decode_tokens // 2, 1))
        self._in_flight, self._worker = item, worker
        # Entered before the reply: a worker that is asked may hold the session from now on.
        self._known.setdefault(worker, 0)
        self._go(Event.DISPATCHED)
        return item

    def _item(
        self, kind: WorkKind, start: int, tokens: Sequence[int], count: int, audited: int
    ) -> WorkItem:
        self._ticket += 1
        return WorkItem(
            session_id=self.session_id,
            ticket=self._ticket,
            kind=kind,
            start=start,
            tokens=tuple(tokens),
            prefix_crc=self._crc(start),
            plan=self._block_plan if kind is WorkKind.VERIFY else self.plan,
            num_tokens=count,
            open=SessionOpen(self.spec.sampling, self.spec.stop_ids) if start == 0 else None,
            num_logprobs=self.spec.num_logprobs,
            num_audit=audited,
            num_shadow=len(self._shadow) if kind is WorkKind.VERIFY else 0,
        )

    def _crc(self, length: int) -> int:
        """Of the first ids, which never change."""
        known, crc = self._named if self._named[0] <= length else (0, 0)
        if known < length:
            crc = prefix_crc(self.tokens[known:length], crc)
            self._named = length, crc
        return crc

    def awaits(self, worker: str, ticket: int) -> bool:
        """Whether this worker's answer to this item is the one that is waited for; any other
        is stale, doubled or foreign."""
        item = self._in_flight
        return item is not None and item.ticket == ticket and worker == self._worker

    def on_reply(self, worker: str, reply: WorkReply) -> Commit | None:
        """Take a reply in; one that is not awaited changes nothing."""
        item = self._in_flight
        if item is None or not self.awaits(worker, reply.ticket):
            return None
        self._in_flight = self._worker = None
        if reply.status is not ReplyStatus.OK:
            self._known[worker] = 0
            self._go(Event.FAILED)
            return None
        self.counters = after_reply(self.counters, reply)
        if item.kind is WorkKind.EXTEND:
            self._known[worker] = item.start + len(item.tokens)
            self._go(Event.EXTENDED)
            return None
        if item.kind is WorkKind.PROPOSE:
            return self._on_proposed(worker, item, reply)
        if item.kind is WorkKind.ROUNDS:
            return self._on_rounds(worker, item, reply)
        return self._on_chosen(worker, item, reply)

    def on_lost(self, worker: str) -> None:
        """The worker is gone, with all it held; work in flight there is wanted again."""
        self._known.pop(worker, None)
        if worker == self._proposer:
            self._warm.clear()
        if self._worker == worker:
            self._in_flight = self._worker = None
            self._go(Event.FAILED)

    def skip_proposing(self) -> None:
        """There is nobody to propose: plain decoding for this round."""
        self._go(Event.NO_PROPOSER)

    def may_share(self, tiers: Collection[Tier]) -> bool:
        """Whether a worker with these tiers can play whole rounds of it: those of exact plans,
        where nothing is left to audit on the way."""
        kind = self.plan.kind
        drafted = kind.exact and kind is not PlanKind.OFF
        return drafted and not len(self._unseen) and {Tier.FULL, *kind.tiers} <= set(tiers)

    def share(self, one_worker: bool) -> None:
        """Waiting for its next round: whether one worker is to play all of it."""
        if one_worker and self.state is State.WAIT_PROPOSE:
            self._go(Event.ONE_WORKER)
        elif not one_worker and self.state is State.WAIT_ROUNDS:
            self._go(Event.SEVERAL_WORKERS)

    def cancel(self) -> None:
        """End it; replies still under way will be stale."""
        if self.state is not State.DONE:
            self._end(FinishReason.CANCELLED)

    @property
    def wants_audit(self) -> bool:
        """Whether a background look of the full tier at committed tokens may begin: not while
        its own step is on its way to look. The last step of every session is such a one, so
        nothing drawn is left unseen at its end."""
        own_look = self.state in (State.BUSY_DECODE, State.BUSY_VERIFY)
        return self._audit is None and self._unseen.drawn and not own_look

    def dispatch_audit(self, worker: str, max_rows: int) -> WorkItem:
        """Have a full worker look at what it has not seen, at most `max_rows` rows at a time."""
        assert self.wants_audit
        first = len(self.tokens) - len(self._unseen)
        start = min(self._known.get(worker, 0), first - 1)
        kind, end = WorkKind.EXTEND, start + max_rows
        if end > first:
            kind, end = WorkKind.AUDIT, min(end, len(self.tokens))
            self._audited = self._unseen.take(end - first)
        self._audit = self._item(kind, start, self.tokens[start:end], 0, len(self._audited))
        self._known.setdefault(worker, 0)
        return self._audit

    def on_audit_reply(self, worker: str, reply: WorkReply) -> tuple[AuditRow, ...]:
        """Take an audit's reply in; the session's own steps know nothing of it."""
        item, looked = self._audit, self._audited
        self._audit, self._audited = None, []
        if item is None or reply.ticket != item.ticket:
            return ()
        # What its own steps have told the worker meanwhile may be more; this is a belief.
        end = item.start + len(item.tokens)
        if reply.status is ReplyStatus.OK:
            self._known[worker] = end
            self.counters = after_look(self.counters, len(reply.audited))
            return rows_of(looked, reply.audited)
        self._known[worker] = 0
        if len(self.tokens) - len(self._unseen) == end:
            self._unseen.put_back(looked)
        return ()

    def drop_audits(self) -> None:
        """There will be no look at what is unseen; one under way says nothing any more."""
        self._audit, self._audited = None, []
        self._unseen.take(len(self._unseen))

    def _on_proposed(self, worker: str, item: WorkItem, reply: WorkReply) -> Commit | None:
        cleared = len(reply.cleared)
        self._known[worker] = len(self.tokens) + cleared
        self._block_from = worker
        if reply.held:
            self._proposer = worker
            self._warm |= dict.fromkeys(item.plan.kind.tiers, len(self.tokens))
        self._block, self._block_tiers = reply.tokens[cleared:], reply.tiers[cleared:]
        self._block_plan = item.plan
        self._verdicts += verdicts_on_draft(item, reply)
        self._shadow = [UnseenToken(p, item.plan.level, drawn=True) for p in reply.shadow]
        if not cleared:
            self._go(Event.PROPOSED if reply.tokens else Event.NOTHING_PROPOSED)
            return None
        return self._commit(reply.tokens[:cleared], reply.tiers[:cleared], cleared=reply.cleared)

    def _on_rounds(self, worker: str, item: WorkItem, reply: WorkReply) -> Commit:
        self._verdicts += verdicts_on_rounds(item, reply.rounds)
        self.counters = after_rounds(self.counters, item, reply.rounds)
        self._known[worker] = len(self.tokens) + len(reply.tokens)
        self._proposer = worker
        self._warm |= dict.fromkeys(item.plan.kind.tiers, len(self.tokens))
        return self._commit(reply.tokens, reply.tiers, reply.logprobs)

    def _on_chosen(self, worker: str, item: WorkItem, reply: WorkReply) -> Commit:
        block, tiers = self._block, self._block_tiers
        self._block, self._block_tiers = (), ()
        base = len(self.tokens)
        rows = rows_of(self._unseen.take(len(self._unseen)), reply.audited[: item.num_audit])
        if item.kind is WorkKind.VERIFY:
            tokens = self._accept(item, block, reply)
            kept = len(tokens) - 1
            # Behind a token that full rejects, the shadow was cast by another prefix.
            shadow = reply.audited[item.num_audit :][: kept + 1]
            rows += rows_of(self._shadow[: len(shadow)], shadow)
            self._shadow = []
            tiers = (*tiers[:kept], Tier.FULL)
            self._verdicts += verdicts_on_block(item, len(block), kept)
            self.counters = after_verification(self.counters, item, block, reply.tokens, kept)
            if self._block_from in self._known:
                self._known[self._block_from] = base + kept
        else:
            tokens, tiers = reply.tokens, (Tier.FULL,) * len(reply.tokens)
            kept = len(tokens)
        self._known[worker] = base + kept
        return self._commit(tokens, tiers, reply.logprobs, audited=rows)

    def _accept(self, item: WorkItem, block: tuple[int, ...], reply: WorkReply) -> tuple[int, ...]:
        if item.plan.kind is not PlanKind.CASCADE:
            return accept_exact(block, reply.tokens)
        # Whether the answer ends is the full tier's own choice under every plan.
        stops = self.spec.stop_ids
        ratios = [
            float(drafted == chosen) if {drafted, chosen} & stops else ratio
            for drafted, chosen, ratio in zip(block, reply.tokens, reply.ratios, strict=False)
        ]
        return accept_cascade(block, reply.tokens, ratios, item.plan.alpha)

    def _commit(
        self,
        tokens: Sequence[int],
        tiers: Sequence[Tier],
        logprobs: Sequence[TokenLogprobs] = (),
        *,
        audited: tuple[AuditRow, ...] = (),
        cleared: Sequence[float] = (),
    ) -> Commit:
        stop = next((i + 1 for i, t in enumerate(tokens) if t in self.spec.stop_ids), None)
        length = min(stop or len(tokens), self.remaining)
        tokens, tiers = tuple(tokens[:length]), tuple(tiers[:length])
        self._unseen.add(len(self.tokens), cleared[:length], self._block_plan.level)
        self.tokens += tokens
        self.counters = after_commit(self.counters, tiers, len(cleared[:length]))
        if stop == length:
            self._end(FinishReason.STOP)
        elif self.remaining == 0:
            self._end(FinishReason.LENGTH)
        elif self._block:
            self._go(Event.PROPOSED)
        elif self.plan.kind is PlanKind.OFF or self.remaining == 1:
            self._go(Event.NEXT_ROUND_PLAIN)
        else:
            self._go(Event.NEXT_ROUND_DRAFTED)
        told = tuple(logprobs[:length])
        plan, why = self._round
        return Commit(tokens, tiers, self.counters, plan, self.finish, told, audited, why=why)

    def _end(self, reason: FinishReason) -> None:
        self.finish = reason
        self._in_flight = self._worker = None
        self._go(Event.FINISHED)

    def _go(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
