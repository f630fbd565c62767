"""A drafter without a model: prompt lookup (Saxena 2023, "prompt lookup decoding").

What followed the last earlier occurrence of the latest few tokens is proposed again. It has
no weights and caches nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from actors.engine.seam import EngineStats, Extend, Propose, Row


def lookup(tokens: Sequence[int], num_tokens: int, longest: int, shortest: int) -> list[int]:
    """Up to `num_tokens` ids that followed the latest earlier match of the longest suffix."""
    ids = np.asarray(tokens, dtype=np.int64)
    for length in range(min(longest, ids.size - 1), shortest - 1, -1):
        windows = np.lib.stride_tricks.sliding_window_view(ids[:-1], length)
        found = np.flatnonzero((windows == ids[-length:]).all(axis=1))
        if found.size:
            start = int(found[-1]) + length
            return ids[start : start + num_tokens].tolist()
    return []


def draft(
    tokens: Sequence[int], num_tokens: int, longest: int, shortest: int, stop_ids: Collection[int]
) -> list[int]:
    """What `lookup` finds, up to the first stop id."""
    found = lookup(tokens, num_tokens, longest, shortest)
    end = next((i + 1 for i, token in enumerate(found) if token in stop_ids), len(found))
    return found[:end]


class NgramEngine:
    """Prompt lookup behind the engine seam; it cannot score, only propose."""

    def __init__(self, longest: int = 4, shortest: int = 2) -> None:
        """Lengths in tokens of the suffix that is looked up."""
        assert 1 <= shortest <= longest
        self._longest = longest
        self._shortest = shortest
        self._proposed = 0

    def score(self, requests: Sequence[Extend]) -> list[list[Row]]:
        """Nothing to cache; scores cannot be asked for."""
        assert all(r.num_score == 0 for r in requests), "prompt lookup has no scores"
        return [[] for _ in requests]

    def extend(self, requests: Sequence[Extend]) -> list[list[int]]:
        """As `score`."""
        return [[row.chosen for row in rows] for rows in self.score(requests)]

    def propose(self, requests: Sequence[Propose]) -> list[list[int]]:
        """See Engine."""
        answers: list[list[int]] = []
        for request in requests:
            context = request.context
            lengths = (self._longest, self._shortest)
            found = draft(context.tokens, request.num_tokens, *lengths, context.stop_ids)
            context.tokens += found
            self._proposed += len(found)
            answers.append(found)
        return answers

    def truncate(self, session_id: str, length: int) -> None:
        """Nothing is cached."""

    def release(self, session_id: str) -> None:
        """Nothing is cached."""

    def stats(self) -> EngineStats:
        """Rows counts proposed tokens."""
        return EngineStats(0, 0, 0, 0, 0, 0, forwards=0, rows=self._proposed)
