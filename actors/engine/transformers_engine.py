"""The engine over a stock transformers decoder: many sessions, one packed forward.

It knows a model object, slots and the sampler; not where the weights came from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from actors.engine import sampler
from actors.engine.attention import Span
from actors.engine.forward import Forward, Pack, PackedForward
from actors.engine.grammar import Grammars
from actors.engine.kv import Slot, SlotTable
from actors.engine.seam import Context, EngineStats, Extend, Propose, Row
from actors.engine.shortlist import Columns, ShortHead
from actors.engine.sizes import weight_bytes
from policies.vocabulary import TokenLogprobs, Verdict


@dataclass(slots=True)
class Pending:
    """The engine's own: a request under way. `todo`: first position not computed; rows are
    wanted from position `score_from` on. `scored`: what was read off each wanted row so far."""

    request: Extend
    slot: Slot
    todo: int
    score_from: int
    scored: list[Any]


@dataclass(slots=True)
class _Proposal:
    """A proposal under way, from `start` on; `probability`: of all of it so far."""

    request: Propose
    start: int
    probability: float = 1.0

    @property
    def context(self) -> Context:
        return self.request.context

    @property
    def wants_more(self) -> bool:
        tokens = self.context.tokens
        room = self.start + self.request.num_tokens - len(tokens)
        return room > 0 and tokens[-1] not in self.context.stop_ids


Read = Callable[[torch.Tensor, Extend, int], list[Any]]
"""Takes logits of a request, (rows, V) or of a shortened head (rows, S); the first row follows
that many tokens."""


class TransformersEngine:
    """One tier's model with its key/value slots."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        num_slots: int,
        slot_tokens: int,
        token_budget: int,
        vocab_size: int | None = None,
        grammars: Grammars | None = None,
        row_invariant: bool = True,
        keep_features: bool = False,
        stop_below: float = 0.0,
        forward: Forward | None = None,
    ) -> None:
        """`slot_tokens`: longest session; `token_budget`: most rows of one forward;
        `vocab_size`: ids that the sessions' full model has, by default the model's own (models
        that share a tokenizer pad their vocabulary differently); `grammars`: the worker's, to
        serve sessions that have one; `row_invariant`: rows are padded to keep the law (DESIGN
        section 2), which a draft may go without and a LeanDecoder does not keep;
        `keep_features`: last hidden states are kept for a draft beside this model; `stop_below`:
        a proposal ends with the token that makes all of it less probable than this, by the
        model's own temperature-scaled distribution; `forward`: over the same number of
        slots, by default the model's pass in this process."""
        assert token_budget >= 1
        self._model = model.eval()
        self._own_vocab = model.config.vocab_size
        self._vocab_size = vocab_size or self._own_vocab
        self._columns = _columns(model, self._vocab_size)
        self._device = model.device
        self._budget = token_budget
        self._row_invariant = row_invariant
        self._forward = forward or PackedForward(
            model,
            num_slots=num_slots,
            slot_tokens=slot_tokens,
            row_invariant=row_invariant,
            keep_features=keep_features,
        )
        self._table = SlotTable(num_slots, self._forward.slot_tokens)
        self._weight_bytes = weight_bytes([model])
        self._grammars = grammars
        self._stop_below = stop_below
        self._forwards = 0
        self._rows = 0

    @torch.inference_mode()
    def score(self, requests: Sequence[Extend]) -> list[list[Row]]:
        """See Engine; forwards are chunked to the token budget."""
        return self._run(requests, self._rows_of)

    @torch.inference_mode()
    def extend(self, requests: Sequence[Extend]) -> list[list[int]]:
        """See Engine."""
        return self._run(requests, self._choices)

    @torch.inference_mode()
    def logits(self, requests: Sequence[Extend]) -> list[list[torch.Tensor]]:
        """As `extend`, but the raw logits of each scored row, shape (V,), instead of g."""
        return self._run(requests, lambda rows, *_: list(self._columns.widen(rows.clone())))

    def propose(self, requests: Sequence[Propose]) -> list[list[int]]:
        """See Engine; one forward a token for all sessions that still want one."""
        made = [_Proposal(r, len(r.context.tokens)) for r in requests]
        going = [p for p in made if p.request.num_tokens > 0]
        while going:
            asked = [Extend(p.context, len(p.context.tokens), 1) for p in going]
            for proposal, [(token, probability)] in zip(going, self._drafted(asked), strict=True):
                proposal.context.tokens.append(token)
                proposal.probability *= probability
            going = [p for p in going if p.wants_more and p.probability >= self._stop_below]
        return [p.context.tokens[p.start :] for p in made]

    @torch.inference_mode()
    def _drafted(self, requests: Sequence[Extend]) -> list[list[tuple[int, float]]]:
        """As `extend`, with the probability of each chosen id; 1 where nobody asks."""
        return self._run(requests, self._weighed_choices)

    def _weighed_choices(
        self, logits: torch.Tensor, request: Extend, first: int
    ) -> list[tuple[int, float]]:
        chosen = self._choices(logits, request, first)
        if not self._stop_below:
            return [(token, 1.0) for token in chosen]
        params = request.context.sampling.params
        rows = logits.float() / (params.temperature or 1.0)
        columns = [self._columns.column_of(token) for token in chosen]
        norms = torch.logsumexp(rows, -1).tolist()
        return [
            # Without a column it was forced by a rule; nobody can say how probable it is.
            (token, 1.0 if column is None else math.exp(float(row[column]) - norm))
            for token, column, row, norm in zip(chosen, columns, rows, norms, strict=True)
        ]

    @property
    def model(self) -> PreTrainedModel:
        """The model it computes with."""
        return self._model

    @property
    def row_invariant(self) -> bool:
        """Whether it is to keep the law of row invariance."""
        return self._row_invariant

    @property
    def foreseeable(self) -> bool:
        """Whether one pass along a known text says what it would propose at each place, as far
        as that agrees with the text."""
        return not self._stop_below

    @property
    def vocab_size(self) -> int:
        """Ids that sessions may hold and that are chosen from."""
        return self._vocab_size

    def truncate(self, session_id: str, length: int) -> None:
        """See Engine."""
        self._table.truncate(session_id, length)

    def release(self, session_id: str) -> None:
        """See Engine."""
        self._table.release(session_id)
        if self._grammars is not None:
            self._grammars.release(session_id)

    def stats(self) -> EngineStats:
        """See Engine."""
        return EngineStats(
            sessions=len(self._table),
            slots=self._table.num_slots,
            cached_tokens=self._table.cached_tokens,
            slot_tokens=self._table.slot_tokens,
            weight_bytes=self._weight_bytes,
            kv_bytes_per_token=self._forward.bytes_per_token,
            forwards=self._forwards,
            rows=self._rows,
            matchers=0 if self._grammars is None else len(self._grammars),
        )

    def check_integrity(self, contexts: Sequence[Context] = ()) -> None:
        """Slots are consistent, and what is cached is a prefix of each context."""
        self._table.check_integrity()
        for context in contexts:
            if (slot := self._table.get(context.session_id)) is not None:
                assert slot.ids == context.tokens[: len(slot.ids)], context.session_id

    def _choices(self, logits: torch.Tensor, request: Extend, first: int) -> list[int]:
        context = request.context
        allowed = self._allowed(context, first, len(logits))
        asked = (logits, context.sampling, context.tokens, first)
        return sampler.choose(*asked, allowed, self._columns)

    def _rows_of(self, logits: torch.Tensor, request: Extend, first: int) -> list[Row]:
        context = request.context
        asked = (logits, context.sampling, context.tokens, first)
        allowed = self._allowed(context, first, len(logits))
        chosen = sampler.choose(*asked, allowed, self._columns)
        count = len(chosen)
        verdicts: list[Verdict | None] = [None] * count
        logprobs: list[TokenLogprobs | None] = [None] * count
        if request.judge:
            found = sampler.judge(*asked, chosen, allowed, self._columns)
            verdicts[: len(found)] = found
        if request.num_logprobs is not None:
            wide = self._columns.widen(logits)
            logprobs[:] = sampler.token_logprobs(wide, chosen, request.num_logprobs)
        return [Row(*row) for row in zip(chosen, verdicts, logprobs, strict=True)]

    def _allowed(self, context: Context, first: int, num_rows: int) -> torch.Tensor | None:
        """The ids that the session's grammar leaves, bool, (num_rows, V); None without one."""
        if not context.sampling.params.grammar:
            return None
        assert self._grammars is not None, "this engine was given no tokenizer"
        mask = self._grammars.allowed(context, first, num_rows, self._vocab_size)
        return torch.from_numpy(mask).to(self._device)

    def _run(self, requests: Sequence[Extend], read: Read) -> list[list[Any]]:
        pending = self._admit(requests)
        while spans := self._next_spans(pending):
            self._pass(spans, read)
        return [p.scored for p in pending]

    def _admit(self, requests: Sequence[Extend]) -> list[Pending]:
        keep = {r.context.session_id for r in requests}
        assert len(keep) == len(requests), "one request a session and call"
        pending: list[Pending] = []
        for request in requests:
            assert 0 <= request.num_score <= request.upto <= len(request.context.tokens)
            assert request.upto <= self._table.slot_tokens, (request.upto, self._table.slot_tokens)
            slot = self._table.acquire(request.context.session_id, keep)
            score_from = request.upto - request.num_score
            # Scored rows are computed even where cached: their logits were not kept.
            del slot.ids[score_from:]
            pending.append(Pending(request, slot, len(slot.ids), score_from, []))
        return pending

    def _next_spans(self, pending: Sequence[Pending]) -> list[tuple[Pending, Span]]:
        """The next chunk: rows of each request in turn up to the token budget."""
        spans: list[tuple[Pending, Span]] = []
        row = 0
        for p in pending:
            count = min(p.request.upto - p.todo, self._budget - row, self._room(p))
            if count > 0:
                spans.append((p, Span(p.slot.index, p.todo, row, count)))
                row += count
        return spans

    def _room(self, pending: Pending) -> int:
        """Rows of a request that one forward can take, the budget apart."""
        return self._budget

    def _pass(self, chunk: Sequence[tuple[Pending, Span]], read: Read) -> None:
        ids: list[int] = []
        scored: list[int] = []
        for p, s in chunk:
            end = s.position + s.count
            ids += p.request.context.tokens[s.position : end]
            first = max(p.score_from, s.position)
            scored += range(s.row + first - s.position, s.row + s.count)
        logits = self._logits(ids, scored, chunk)
        at = 0
        for p, s in chunk:
            end = s.position + s.count
            p.slot.ids += p.request.context.tokens[s.position : end]
            p.todo = end
            first = max(p.score_from, s.position)
            if (count := end - first) > 0:
                p.scored += read(logits[at : at + count], p.request, first + 1)
                at += count

    def _logits(
        self, ids: list[int], scored: list[int], chunk: Sequence[tuple[Pending, Span]]
    ) -> torch.Tensor:
        """One packed forward; returns the scored rows' logits, shape (len(scored), V), or
        (len(scored), S) of a shortened head."""
        self._forwards += 1
        self._rows += len(ids)
        if self._own_vocab < self._vocab_size:
            ids = [token if token < self._own_vocab else 0 for token in ids]
        spans = [span for _, span in chunk]
        logits = self._forward(Pack(ids, spans, scored, self._inputs(chunk)))
        # Columns that the full model has not are cut off, those that it has alone are impossible.
        if self._columns.ids is not None:
            return logits[:, : len(self._columns.ids)]
        logits = logits[:, : self._vocab_size]
        if (lacking := self._vocab_size - self._own_vocab) > 0:
            logits = nn.functional.pad(logits, (0, lacking), value=float("-inf"))
        return logits

    def _inputs(self, chunk: Sequence[tuple[Pending, Span]]) -> torch.Tensor | None:
        """What the model reads beside the ids, (rows, hidden)."""
        return None

    def num_cached(self, session_id: str) -> int:
        """Of how many of the session's tokens keys, values and features are held."""
        slot = self._table.get(session_id)
        return 0 if slot is None else len(slot.ids)

    def features_of(self, session_id: str, first: int, end: int) -> torch.Tensor:
        """Of the session's cached tokens from `first` to at most `end`: (rows, hidden)."""
        features = self._forward.features
        assert features is not None
        slot = self._table.get(session_id)
        if slot is None:
            return features.read(0, 0, 0)
        return features.read(slot.index, first, max(min(end, len(slot.ids)), first))


def _columns(model: PreTrainedModel, vocab_size: int) -> Columns:
    """Of the model's logits, as far as the full model has their ids."""
    head = model.lm_head
    if not isinstance(head, ShortHead):
        return Columns(vocab_size)
    return Columns(vocab_size, head.ids[head.ids < vocab_size])
