"""Prompt lookup in the router itself: a draft without a model is not worth a call to a worker."""

from __future__ import annotations

import time
from dataclasses import dataclass

from actors.engine.ngram import draft
from policies.estimates import TierTiming
from policies.session import Session
from policies.vocabulary import Tier
from policies.work import ReplyStatus, WorkKind, WorkReply

HERE = "router"
"""Under this name a session knows it, as it knows workers."""
_NO_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class Lookup:
    """Lengths in tokens of the suffix that is looked up."""

    longest: int
    shortest: int

    def serves(self, session: Session) -> bool:
        """Whether the session waits for a draft that nobody screens."""
        return session.wants is WorkKind.PROPOSE and session.plan.kind.tiers == {Tier.DRAFT}

    def propose(self, session: Session) -> TierTiming:
        """Give the session its draft, or the news that there is none; what that took."""
        begin = time.perf_counter()
        item = session.dispatch(HERE, _NO_LIMIT)
        lengths = (self.longest, self.shortest)
        found = draft(session.tokens, item.num_tokens, *lengths, session.spec.stop_ids)
        tokens = tuple(found)
        reply = WorkReply(
            session.session_id,
            item.ticket,
            ReplyStatus.OK,
            tokens=tokens,
            tiers=(Tier.DRAFT,) * len(tokens),
            draft_asked=item.num_tokens,
            draft_tokens=len(tokens),
        )
        session.on_reply(HERE, reply)
        return TierTiming(Tier.DRAFT, time.perf_counter() - begin, 0, len(tokens))
