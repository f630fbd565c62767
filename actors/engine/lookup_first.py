"""Prompt lookup in front of a draft model: what stood here before is cheaper to repeat than to
compute, and more often right.

It knows the engine behind it by its seam only; that engine computes what lookup proposed when
it is next asked to go on.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.engine.ngram import draft
from actors.engine.seam import Engine, EngineStats, Extend, Propose, Row


def behind(engine: Engine) -> Engine:
    """The engine itself, without prompt lookup in front."""
    return engine.behind if isinstance(engine, LookupFirst) else engine


class LookupFirst:
    """Stands in for `engine`; looks up suffixes of `longest` to `shortest` tokens."""

    def __init__(self, engine: Engine, longest: int, shortest: int) -> None:
        assert 1 <= shortest <= longest
        self._engine = engine
        self._longest = longest
        self._shortest = shortest

    @property
    def behind(self) -> Engine:
        """The engine that it stands in for."""
        return self._engine

    def propose(self, requests: Sequence[Propose]) -> list[list[int]]:
        """See Engine; the model goes on where lookup found too little."""
        starts = [len(r.context.tokens) for r in requests]
        missing: list[Propose] = []
        for request in requests:
            context = request.context
            lengths = (self._longest, self._shortest)
            found = draft(context.tokens, request.num_tokens, *lengths, context.stop_ids)
            context.tokens += found
            ended = bool(found) and found[-1] in context.stop_ids
            if len(found) < request.num_tokens and not ended:
                missing.append(Propose(context, request.num_tokens - len(found)))
        if missing:
            self._engine.propose(missing)
        return [r.context.tokens[s:] for r, s in zip(requests, starts, strict=True)]

    def score(self, requests: Sequence[Extend]) -> list[list[Row]]:
        """See Engine."""
        return self._engine.score(requests)

    def extend(self, requests: Sequence[Extend]) -> list[list[int]]:
        """See Engine."""
        return self._engine.extend(requests)

    def truncate(self, session_id: str, length: int) -> None:
        """See Engine."""
        self._engine.truncate(session_id, length)

    def release(self, session_id: str) -> None:
        """See Engine."""
        self._engine.release(session_id)

    def stats(self) -> EngineStats:
        """See Engine."""
        return self._engine.stats()
