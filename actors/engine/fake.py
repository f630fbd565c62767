"""A deterministic engine for unit tests: g is a hash of the prefix, agreement is a dial."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from actors.engine.seam import EngineStats, Extend, Propose


class FakeEngine:
    """Chooses as the hidden full model does for a share `agreement` of all prefixes.

    It keeps what a real cache would keep and fails when it is asked past that.
    """

    def __init__(self, vocab_size: int = 50, agreement: float = 1.0, salt: int = 0) -> None:
        self._vocab_size = vocab_size
        self._agreement = agreement
        self._salt = salt
        self.cached: dict[str, list[int]] = {}
        self.forwards = 0
        self.rows = 0

    def choose(self, tokens: Sequence[int], seed: int) -> int:
        """g(tokens): the full model's choice, or another for a share of prefixes."""
        data = np.asarray(tokens, np.int64).tobytes()
        full = zlib.crc32(data, seed & 0xFFFFFFFF) % self._vocab_size
        agrees = zlib.crc32(data, self._salt + 1) / 2**32 < self._agreement
        return full if agrees else (full + 1) % self._vocab_size

    def extend(self, requests: Sequence[Extend]) -> list[list[int]]:
        """See Engine."""
        self.forwards += 1
        answers: list[list[int]] = []
        for request in requests:
            context, upto = request.context, request.upto
            cached = self.cached.setdefault(context.session_id, [])
            assert cached == context.tokens[: len(cached)], "the cache is not a prefix"
            del cached[upto - request.num_score :]
            self.rows += upto - len(cached)
            cached += context.tokens[len(cached) : upto]
            answers.append(
                [
                    self.choose(context.tokens[:end], context.sampling.seed)
                    for end in range(upto - request.num_score + 1, upto + 1)
                ]
            )
        return answers

    def propose(self, requests: Sequence[Propose]) -> list[list[int]]:
        """See Engine."""
        answers: list[list[int]] = []
        for request in requests:
            context, start = request.context, len(request.context.tokens)
            for _ in range(request.num_tokens):
                chosen = self.extend([Extend(context, len(context.tokens), 1)])
                context.tokens += chosen[0]
                if chosen[0][0] in context.stop_ids:
                    break
            answers.append(context.tokens[start:])
        return answers

    def truncate(self, session_id: str, length: int) -> None:
        """See Engine."""
        if session_id in self.cached:
            del self.cached[session_id][length:]

    def release(self, session_id: str) -> None:
        """See Engine."""
        self.cached.pop(session_id, None)

    def stats(self) -> EngineStats:
        """See Engine."""
        cached = sum(map(len, self.cached.values()))
        return EngineStats(len(self.cached), 64, cached, 4096, 0, 0, self.forwards, self.rows)
