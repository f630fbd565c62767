"""A deterministic engine for unit tests: g is a hash of the prefix, agreement is a dial."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from actors.engine.seam import EngineStats, Extend, Propose, Row
from policies.vocabulary import TokenLogprobs, Verdict


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

    def judge(self, tokens: Sequence[int], seed: int, drafted: int) -> Verdict:
        """Certain of its own choice, unsure by a hash of any other id."""
        own = self.choose(tokens, seed)
        data = np.asarray([*tokens, drafted], np.int64).tobytes()
        ratio = 1.0 if drafted == own else zlib.crc32(data, self._salt + 2) / 2**32
        margin = zlib.crc32(data, self._salt + 3) / 2**32
        return Verdict(ratio, margin, math.log(max(ratio, 1e-9)) - 0.5, -0.5)

    def extend(self, requests: Sequence[Extend]) -> list[list[int]]:
        """See Engine."""
        return [[row.chosen for row in rows] for rows in self.score(requests)]

    def score(self, requests: Sequence[Extend]) -> list[list[Row]]:
        """See Engine."""
        self.forwards += 1
        answers: list[list[Row]] = []
        for request in requests:
            context, upto = request.context, request.upto
            cached = self.cached.setdefault(context.session_id, [])
            assert cached == context.tokens[: len(cached)], "the cache is not a prefix"
            del cached[upto - request.num_score :]
            self.rows += upto - len(cached)
            cached += context.tokens[len(cached) : upto]
            ends = range(upto - request.num_score + 1, upto + 1)
            answers.append([self._row(request, end) for end in ends])
        return answers

    def _row(self, request: Extend, end: int) -> Row:
        context, before = request.context, request.context.tokens[:end]
        seed = context.sampling.seed
        chosen = self.choose(before, seed)
        verdict = logprobs = None
        if request.judge and end < len(context.tokens):
            verdict = self.judge(before, seed, context.tokens[end])
        if request.num_logprobs is not None:
            top = tuple((chosen + i, -0.5 - i) for i in range(request.num_logprobs))
            logprobs = TokenLogprobs(-0.5, top)
        return Row(chosen, verdict, logprobs)

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
