"""Workers for the laws of a session: plain functions of a prefix behind the rules of WorkItem.

They hold token ids as a real worker does, forget them when told, and know no model.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from policies.session import prefix_crc
from policies.vocabulary import PlanKind, SessionSpec, Tier, TokenLogprobs
from policies.work import Audited, ReplyStatus, RoundCounts, WorkItem, WorkKind, WorkReply

VOCAB = 6

Law = Callable[[Sequence[int]], int]


def full_law(tokens: Sequence[int]) -> int:
    """g of the full tier."""
    return zlib.crc32(repr(list(tokens)).encode()) % VOCAB


def agreeing(share: float, salt: int) -> Law:
    """A law that equals the full tier's for a share of all prefixes."""

    def law(tokens: Sequence[int]) -> int:
        luck = zlib.crc32(repr([salt, *tokens]).encode()) / 2**32
        return full_law(tokens) if luck < share else (full_law(tokens) + 1) % VOCAB

    return law


def plain_decoding(spec: SessionSpec) -> list[int]:
    """The prompt and what the full tier alone makes of it, to its end."""
    tokens = list(spec.tokens)
    while len(tokens) - spec.sampling.prompt_len < spec.max_tokens:
        tokens.append(full_law(tokens))
        if tokens[-1] in spec.stop_ids:
            break
    return tokens


def logprobs_of(tokens: Sequence[int]) -> tuple[TokenLogprobs, ...]:
    """Made up; they name their token."""
    return tuple(TokenLogprobs(float(-token)) for token in tokens)


def _looks(item: WorkItem, tokens: Sequence[int]) -> tuple[Audited, ...]:
    """What the full tier says of the ids that the item asks about."""
    block = item.num_tokens if item.kind is WorkKind.VERIFY else 0
    first = len(tokens) - block - item.num_audit
    last = first + item.num_audit + item.num_shadow
    return tuple(
        Audited(full_law(tokens[:at]) == tokens[at], -0.2 * tokens[at]) for at in range(first, last)
    )


class FakeWorker:
    """Does items one by one. `largest_rows` is the largest item it has seen."""

    def __init__(self, draft: Law, slim: Law) -> None:
        self._draft = draft
        self._slim = slim
        self.held: dict[str, list[int]] = {}
        self.stops: dict[str, frozenset[int]] = {}

    def do(self, item: WorkItem) -> WorkReply:
        """The reply to one item; see WorkItem for the law of each kind."""
        held = self.held.get(item.session_id)
        if item.open is not None:
            assert item.start == 0
            held = []
            self.stops[item.session_id] = item.open.stop_ids
        if held is None or prefix_crc(held[: item.start]) != item.prefix_crc:
            return WorkReply(item.session_id, item.ticket, ReplyStatus.NEED_PREFIX)
        tokens = [*held[: item.start], *item.tokens]
        assert len(held[: item.start]) == item.start
        rounds: list[RoundCounts] = []
        match item.kind:
            case WorkKind.EXTEND:
                chosen, tiers = [], []
            case WorkKind.DECODE:
                chosen = self._decode(tokens, item)
                tokens += chosen
                tiers = [Tier.FULL] * len(chosen)
            case WorkKind.VERIFY:
                base = len(tokens) - item.num_tokens
                chosen = [full_law(tokens[:end]) for end in range(base, len(tokens) + 1)]
                tiers = [Tier.FULL] * len(chosen)
            case WorkKind.PROPOSE:
                chosen, tiers = self._propose(tokens, item)
                tokens += chosen
            case WorkKind.ROUNDS:
                chosen, tiers, rounds = self._rounds(tokens, item)
                tokens += chosen
            case WorkKind.AUDIT:
                chosen, tiers = [], []
        self.held[item.session_id] = tokens
        return WorkReply(
            item.session_id,
            item.ticket,
            ReplyStatus.OK,
            held=len(tokens),
            tokens=tuple(chosen),
            tiers=tuple(tiers),
            logprobs=logprobs_of(chosen) if item.num_logprobs is not None else (),
            cleared=self._cleared(item, chosen),
            audited=_looks(item, [*held[: item.start], *item.tokens]),
            rounds=tuple(rounds),
            draft_tokens=tiers.count(Tier.DRAFT),
            full_rows=len(chosen) if item.kind is not WorkKind.PROPOSE else 0,
        )

    def _cleared(self, item: WorkItem, chosen: Sequence[int]) -> tuple[float, ...]:
        """Under VIA a part of the block by a hash, never a stop id."""
        if item.kind is not WorkKind.PROPOSE or item.plan.kind is not PlanKind.VIA:
            return ()
        count = zlib.crc32(repr(list(chosen)).encode()) % (len(chosen) + 1)
        stops = [i for i, token in enumerate(chosen) if token in self.stops[item.session_id]]
        return tuple(-0.1 * token for token in chosen[: min([count, *stops])])

    def _decode(self, tokens: Sequence[int], item: WorkItem) -> list[int]:
        chosen: list[int] = []
        while len(chosen) < item.num_tokens:
            chosen.append(full_law([*tokens, *chosen]))
            if chosen[-1] in self.stops[item.session_id]:
                break
        return chosen

    def _rounds(
        self, tokens: Sequence[int], item: WorkItem
    ) -> tuple[list[int], list[Tier], list[RoundCounts]]:
        chosen: list[int] = []
        tiers: list[Tier] = []
        rounds: list[RoundCounts] = []
        stops = self.stops[item.session_id]
        while len(rounds) < item.num_rounds and len(chosen) < item.num_tokens:
            if chosen and chosen[-1] in stops:
                break
            room = item.num_tokens - len(chosen) - 1
            asked = replace(item, num_tokens=min(item.plan.block_len, room))
            block, proposed = self._propose([*tokens, *chosen], asked)
            kept = 0
            while kept < len(block) and full_law([*tokens, *chosen]) == block[kept]:
                chosen.append(block[kept])
                tiers.append(proposed[kept])
                kept += 1
            rounds.append(RoundCounts(len(block), kept, asked.num_tokens, len(block)))
            if not (kept and chosen[-1] in stops):
                chosen.append(full_law([*tokens, *chosen]))
                tiers.append(Tier.FULL)
        return chosen, tiers, rounds

    def _propose(self, tokens: Sequence[int], item: WorkItem) -> tuple[list[int], list[Tier]]:
        # An empty proposal now and then, as prompt lookup makes them.
        if zlib.crc32(repr(tokens).encode()) % 5 == 0:
            return [], []
        law = self._draft if item.plan.kind is PlanKind.TWO_TIER else self._slim
        chosen: list[int] = []
        while len(chosen) < item.num_tokens:
            chosen.append(law([*tokens, *chosen]))
            if chosen[-1] in self.stops[item.session_id]:
                break
        tiers = [
            Tier.SLIM if item.plan.kind is PlanKind.THREE_TIER and i % 2 else Tier.DRAFT
            for i in range(len(chosen))
        ]
        return chosen, tiers
