"""Which ids a grammar leaves at each place of an answer: the mask of `proc` (DESIGN section 2).

A grammar is the text of a JSON schema; llguidance compiles and follows it. A mask depends on
the grammar, the stop ids and the answer so far, never on the tier or on what was asked before.
It knows token ids and a tokenizer; no model and no tensors.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from actors.engine.seam import Context

Mask = NDArray[np.bool_]
MAX_COMPILED = 32
_MAX_REASON_CHARS = 300
# What a schema may cost: when it is compiled, in each step, and in memory (1 to 2 kB a state).
_LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_grammar_size=100_000,
    max_lexer_states=25_000,
    verbose_errors=False,
)


class GrammarError(ValueError):
    """The grammar cannot be followed; the message is one line that says why."""


class GrammarCompiler:
    """Compiles grammars for one tokenizer and keeps the latest. Safe to share by threads."""

    def __init__(self, tokenizer_json: str, eos_id: int | None) -> None:
        """`tokenizer_json`: a fast tokenizer as the tokenizers library serialises it."""
        self._tokenizer = LLTokenizer(tokenizer_json, eos_token=eos_id)
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def end_id(self) -> int:
        """The id that ends a complete answer where a session has no stop id."""
        return self._tokenizer.eos_token

    def matcher(self, grammar: str) -> LLMatcher:
        """A matcher at the start of the answer. Raises GrammarError."""
        with self._lock:
            known = self._compiled.get(grammar)
            if known is None:
                known = self._compiled[grammar] = self._compile(grammar)
                while len(self._compiled) > MAX_COMPILED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar)
            return known.deep_copy()

    def forget(self, grammar: str) -> None:
        """Compile it anew when it is next asked for: copies share what the limits count."""
        with self._lock:
            self._compiled.pop(grammar, None)

    def _compile(self, grammar: str) -> LLMatcher:
        try:
            text = LLMatcher.grammar_from_json_schema(
                grammar,
                # A schema cannot change these through llguidance's own keyword, x-guidance. White
                # space is bounded: a small model can fill its context with newlines.
                overrides={
                    "whitespace_flexible": True,
                    "whitespace_pattern": r"[ \n\t]{0,20}",
                    "item_separator": ",",
                    "key_separator": ":",
                    "lenient": False,
                    "coerce_one_of": False,
                },
            )
        except ValueError as exc:
            raise GrammarError(_one_line(str(exc))) from None
        matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=_LIMITS)
        _check(matcher)
        matcher.compute_bitmask()
        if matcher.is_stopped():  # JSON is never empty: here nothing can follow
            raise GrammarError("no answer satisfies it")
        return matcher


class Grammars:
    """Where the sessions of a worker stand in their grammars; its tiers share one of these.

    `load` is called when a grammar is first asked for.
    """

    def __init__(self, load: Callable[[], GrammarCompiler]) -> None:
        self._load = load
        self._compiler: GrammarCompiler | None = None
        self._followers: dict[str, _Follower] = {}

    def allowed(self, context: Context, first: int, num_rows: int, vocab_size: int) -> Mask:
        """The ids that may follow `tokens[: first + i]` in row i, shape (num_rows, vocab_size).

        No row is empty: where the answer may end, the stop ids are allowed, and they alone where
        nothing else is, or behind a token that the grammar forbids (a drafted one: what is
        chosen there is never committed). Raises GrammarError past the limits of a step.
        """
        grammar = context.sampling.params.grammar
        if self._compiler is None:
            self._compiler = self._load()
        ends = [i for i in context.stop_ids if i < vocab_size]
        ends = ends or [min(self._compiler.end_id, vocab_size - 1)]
        rows = np.zeros((num_rows, vocab_size), np.bool_)
        for i, row in enumerate(rows):
            output = context.tokens[context.sampling.prompt_len : first + i]
            self._fill(row, context.session_id, grammar, output, ends)
        return rows

    def release(self, session_id: str) -> None:
        """Forget the session; unknown ids are ignored."""
        self._followers.pop(session_id, None)

    def __len__(self) -> int:
        return len(self._followers)

    def _fill(
        self, row: Mask, session_id: str, grammar: str, output: Sequence[int], ends: Sequence[int]
    ) -> None:
        assert self._compiler is not None
        for last_try in (False, True):
            follower = self._followers.get(session_id)
            if follower is None:
                follower = _Follower(self._compiler.matcher(grammar))
                self._followers[session_id] = follower
            try:
                return follower.fill(row, output, ends)
            except GrammarError:
                # Limits count what every copy of the compiled grammar did: once more, afresh.
                self._compiler.forget(grammar)
                self.release(session_id)
                if last_try:
                    raise


class _Follower:
    """One session's matcher, at the state after `_taken`, the ids of the answer it consumed."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._taken: list[int] = []

    def fill(self, row: Mask, output: Sequence[int], ends: Sequence[int]) -> None:
        """Set in `row`, all false, what may follow `output`."""
        inside = self._follow(output)
        if inside:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            _check(self._matcher)
            row[:] = np.unpackbits(bits, count=row.size, bitorder="little")
        if not inside or self._matcher.is_accepting() or not row.any():
            row[ends] = True

    def _follow(self, output: Sequence[int]) -> bool:
        """Move to the state after `output`; false where it leaves the grammar."""
        kept = _common_len(self._taken, output)
        if kept < len(self._taken):
            self._matcher.rollback(len(self._taken) - kept)
            del self._taken[kept:]
        new = list(output[kept:])
        count = self._matcher.try_consume_tokens(new) if new else 0
        self._taken += new[:count]
        _check(self._matcher)
        return count == len(new)


def _common_len(a: Sequence[int], b: Sequence[int]) -> int:
    shortest = min(len(a), len(b))
    if a[:shortest] == b[:shortest]:
        return shortest
    return next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)


def _check(matcher: LLMatcher) -> None:
    if matcher.is_error():
        raise GrammarError(_one_line(matcher.get_error()))


def _one_line(text: str) -> str:
    # The second part advises an option of llguidance's that nobody can set here.
    text = text.replace("<non-verbose/>", "").partition(" Enable 'coerce_one_of'")[0]
    lines = (line.strip().rstrip(".") for line in text.splitlines())
    return " ".join(line for line in lines if line)[:_MAX_REASON_CHARS] or "it was rejected"
