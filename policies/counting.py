"""What a session has cost and lost, reply by reply: pure steps from Counters to Counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from policies.evidence import Rate, Verdicts
from policies.vocabulary import Counters, PlanKind, Tier
from policies.work import RoundCounts, WorkItem, WorkReply


def together(one: Counters, other: Counters) -> Counters:
    """What both have cost: of a session that was served in two parts."""
    return Counters(*(getattr(one, f.name) + getattr(other, f.name) for f in fields(Counters)))


def less(now: Counters, before: Counters) -> Counters:
    """What has come since."""
    return Counters(*(getattr(now, f.name) - getattr(before, f.name) for f in fields(Counters)))


def after_reply(done: Counters, reply: WorkReply) -> Counters:
    """With what a worker says that it did."""
    return _plus(
        done,
        draft_tokens=reply.draft_tokens,
        draft_judged=reply.draft_judged,
        slim_rows=reply.slim_rows,
        slim_passes=reply.slim_passes,
        full_rows=reply.full_rows,
        full_passes=reply.full_passes,
    )


def after_verification(
    done: Counters, item: WorkItem, block: Sequence[int], chosen: Sequence[int], kept: int
) -> Counters:
    """With the full tier's verdict on a block, of which `kept` tokens stay. What slim has
    screened was counted as judged then."""
    judged = 0 if item.plan.kind is PlanKind.THREE_TIER else min(kept + 1, len(block))
    lenient = sum(a != b for a, b in zip(block[:kept], chosen, strict=False))
    return _plus(done, draft_judged=judged, lenient=lenient)


def after_rounds(done: Counters, item: WorkItem, rounds: Sequence[RoundCounts]) -> Counters:
    """With the rounds of one ROUNDS but the last, which its commit counts, and what the full
    tier judged of the draft's."""
    screened = item.plan.kind is PlanKind.THREE_TIER
    judged = 0 if screened else sum(min(r.kept + 1, r.block) for r in rounds)
    return _plus(done, rounds=max(len(rounds) - 1, 0), draft_judged=judged)


def after_look(done: Counters, num_rows: int) -> Counters:
    """With one background look of the full tier."""
    return _plus(done, audit_rows=num_rows, audit_passes=1)


def after_commit(done: Counters, tiers: Sequence[Tier], num_unseen: int) -> Counters:
    """With the tokens of one commit."""
    return _plus(
        done,
        rounds=1,
        from_draft=tiers.count(Tier.DRAFT),
        from_slim=tiers.count(Tier.SLIM),
        from_full=tiers.count(Tier.FULL),
        unseen=num_unseen,
    )


def _plus(
    done: Counters,
    rounds: int = 0,
    draft_tokens: int = 0,
    draft_judged: int = 0,
    slim_rows: int = 0,
    slim_passes: int = 0,
    full_rows: int = 0,
    full_passes: int = 0,
    from_draft: int = 0,
    from_slim: int = 0,
    from_full: int = 0,
    unseen: int = 0,
    lenient: int = 0,
    audit_rows: int = 0,
    audit_passes: int = 0,
) -> Counters:
    """Written out: `dataclasses.replace` takes several times as long, and every reply of every
    session comes through here."""
    return Counters(
        done.rounds + rounds,
        done.draft_tokens + draft_tokens,
        done.draft_judged + draft_judged,
        done.slim_rows + slim_rows,
        done.slim_passes + slim_passes,
        done.full_rows + full_rows,
        done.full_passes + full_passes,
        done.from_draft + from_draft,
        done.from_slim + from_slim,
        done.from_full + from_full,
        done.unseen + unseen,
        done.lenient + lenient,
        done.audit_rows + audit_rows,
        done.audit_passes + audit_passes,
    )


def verdicts_on_draft(item: WorkItem, reply: WorkReply) -> list[Verdicts]:
    """What a PROPOSE says of the draft."""
    counts = reply.draft_asked, reply.draft_tokens
    if item.plan.kind is PlanKind.TWO_TIER:
        return [Verdicts(Rate.DRAFT_FULL, 0, 0, *counts)]
    if item.plan.kind is PlanKind.THREE_TIER:
        kept = reply.tiers.count(Tier.DRAFT)
        return [Verdicts(Rate.DRAFT_SLIM, reply.draft_judged, kept, *counts)]
    if item.plan.kind is PlanKind.VIA:
        cleared = len(reply.cleared)
        kept, left = reply.tiers[:cleared].count(Tier.DRAFT), len(reply.tokens) - cleared
        judged = reply.draft_judged
        return [Verdicts(Rate.DRAFT_SLIM, judged, kept, *counts, escalated=left, exact=False)]
    return []


def verdicts_on_block(item: WorkItem, num_block: int, kept: int) -> list[Verdicts]:
    """What a VERIFY says of what was proposed."""
    screened = item.plan.kind is PlanKind.THREE_TIER
    rate = Rate.SLIM_FULL if screened else Rate.DRAFT_FULL
    judged = min(kept + 1, num_block)
    return [Verdicts(rate, judged, kept, 0, 0, block=num_block, exact=item.plan.kind.exact)]


def verdicts_on_rounds(item: WorkItem, rounds: Sequence[RoundCounts]) -> list[Verdicts]:
    """What the rounds of one ROUNDS say of the draft and of slim."""
    if item.plan.kind is PlanKind.TWO_TIER:
        judged = ((min(r.kept + 1, r.block), r) for r in rounds)
        return [
            Verdicts(Rate.DRAFT_FULL, n, r.kept, r.asked, r.drafted, block=r.block)
            for n, r in judged
        ]
    return [
        verdicts
        for r in rounds
        for verdicts in (
            Verdicts(Rate.DRAFT_SLIM, r.judged, r.screened, r.asked, r.drafted),
            Verdicts(Rate.SLIM_FULL, min(r.kept + 1, r.block), r.kept, 0, 0, block=r.block),
        )
    ]
