"""Chooses tokens from logits on tensors: g of `policies.sampling`, without sorting the vocabulary.

Rows are judged one at a time and every reduction runs over one row alone, so that a choice
does not depend on what shares the step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from actors.engine.noise import gumbel, ids_with_noise_at_least
from actors.engine.shortlist import Columns
from policies.vocabulary import SamplingParams, SamplingSpec, TokenLogprobs, Verdict

_FIRST_TRY = 128
"""Highest logits looked at first; a peaked row is settled within them."""


def choose(
    logits: torch.Tensor,
    spec: SamplingSpec,
    tokens: Sequence[int],
    first: int,
    allowed: torch.Tensor | None = None,
    columns: Columns | None = None,
) -> list[int]:
    """g at consecutive positions of one session.

    `logits`: raw, shape (rows, V); row i follows `tokens[: first + i]`. `allowed`: bool, of the
    same shape: the ids that the session's grammar leaves. `columns`: of a shortened head, whose
    logits are (rows, S); `allowed` is (rows, V) all the same.
    """
    params = spec.params
    logits, columns = _as_wide_as_needed(logits, params, allowed, columns)
    if params.temperature == 0.0 and not params.has_penalties and not params.logit_bias:
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -math.inf)
        return columns.ids_of(torch.argmax(logits, dim=-1)).tolist()
    return [
        _choose_row(row, spec, first + i, columns)
        for i, row in enumerate(_penalised(logits, spec, tokens, first, allowed))
    ]


def judge(
    logits: torch.Tensor,
    spec: SamplingSpec,
    tokens: Sequence[int],
    first: int,
    chosen: Sequence[int],
    allowed: torch.Tensor | None = None,
    columns: Columns | None = None,
) -> list[Verdict]:
    """Verdicts on the ids that `tokens` holds at the rows' own places, one for each row that
    has such an id; `policies.sampling.judge` is the law. Shapes as in `choose`;
    an id without a column has probability zero."""
    logits, columns = _as_wide_as_needed(logits, spec.params, allowed, columns)
    drafted = tokens[first : first + len(logits)]
    allowed = None if allowed is None else allowed[: len(drafted)]
    rows = _penalised(logits[: len(drafted)], spec, tokens, first, allowed)
    return [
        _judge_row(row, spec.params, *map(columns.column_of, ids))
        for row, *ids in zip(rows, drafted, chosen[: len(drafted)], strict=True)
    ]


def token_logprobs(
    logits: torch.Tensor, chosen: Sequence[int], num_top: int
) -> list[TokenLogprobs]:
    """Of each row of raw logits, shape (rows, V), about the id chosen there."""
    found: list[TokenLogprobs] = []
    for row, token in zip(logits, chosen, strict=True):
        wide = row.double()
        norm = torch.logsumexp(wide, 0)
        top = torch.topk(wide, num_top)
        pairs = zip(top.indices.tolist(), (top.values - norm).tolist(), strict=True)
        found.append(TokenLogprobs(float(wide[token] - norm), tuple(pairs)))
    return found


def _as_wide_as_needed(
    logits: torch.Tensor,
    params: SamplingParams,
    allowed: torch.Tensor | None,
    columns: Columns | None,
) -> tuple[torch.Tensor, Columns]:
    """A shortened head's rows at full width where a rule goes by id; else as they are."""
    whole = Columns(logits.shape[-1] if columns is None else columns.vocab_size)
    if columns is None:
        return logits, whole
    if params.has_penalties or params.logit_bias or allowed is not None:
        return columns.widen(logits), whole
    return logits, columns


def _penalised(
    logits: torch.Tensor,
    spec: SamplingSpec,
    tokens: Sequence[int],
    first: int,
    allowed: torch.Tensor | None,
) -> torch.Tensor:
    """The rows in float32 with penalties, bias and grammar; a copy, since a retry must find the
    logits as they were."""
    rows = logits.to(torch.float32, copy=True)
    if spec.params.has_penalties or spec.params.logit_bias:
        for i, row in enumerate(rows):
            before = tokens[: first + i]
            _penalise_(row, spec.params, before[: spec.prompt_len], before[spec.prompt_len :])
    if allowed is not None:
        rows.masked_fill_(~allowed, -math.inf)
    return rows


def _judge_row(
    row: torch.Tensor, params: SamplingParams, drafted: int | None, chosen: int | None
) -> Verdict:
    """`drafted` and `chosen` are columns of the row; None where the id has none."""
    greedy = params.temperature == 0.0
    scaled = row if greedy else row / params.temperature
    kept = scaled if greedy or not _filters(params, row) else scaled[kept_ids(scaled, params)]
    norm = float(torch.logsumexp(kept.double(), 0))
    highest, second = (*torch.topk(kept, min(2, kept.numel())).values.tolist(), -math.inf)[:2]
    least = float(kept.min())

    def logarithm(column: int | None) -> float:
        value = -math.inf if column is None else float(scaled[column])
        return value - norm if value >= least else -math.inf

    return Verdict(
        ratio=math.exp(logarithm(drafted) + norm - highest),
        margin=math.exp(highest - norm) - math.exp(second - norm),
        logprob=logarithm(drafted),
        own_logprob=logarithm(chosen),
    )


def _filters(params: SamplingParams, row: torch.Tensor) -> bool:
    return params.min_p > 0.0 or params.top_p < 1.0 or 0 < params.top_k < row.numel()


def _choose_row(row: torch.Tensor, spec: SamplingSpec, position: int, columns: Columns) -> int:
    params = spec.params
    # All -inf: a draft that lacks every allowed id.
    if params.temperature == 0.0 or float(row.max()) == -math.inf:
        return int(columns.ids_of(torch.argmax(row)))
    scaled = row / params.temperature
    noise_of = (spec.seed, spec.choice, position)
    if _filters(params, row):
        ids, score = _scored(scaled, kept_ids(scaled, params), noise_of, columns)
    else:
        ids, score = _contenders(scaled, noise_of, columns)
    return int(ids[score == score.max()].min())


def _scored(
    scaled: torch.Tensor, left: torch.Tensor, noise_of: tuple[int, int, int], columns: Columns
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of some columns and their logits / T + G."""
    ids = columns.ids_of(left)
    return ids, scaled[left].double() + gumbel(*noise_of, ids, columns.vocab_size)


def _contenders(
    scaled: torch.Tensor, noise_of: tuple[int, int, int], columns: Columns
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids that can win the argmax over the whole row, in no order and some of them twice, and
    their scores.

    The best of the highest logits sets a score; any other id needs at least that score less
    the lowest of these logits as noise, which the integer hash alone can rule out.
    """
    size = columns.vocab_size
    top = torch.topk(scaled, min(_FIRST_TRY, scaled.numel()))
    ids, score = _scored(scaled, top.indices, noise_of, columns)
    bound = float(score.max()) - float(top.values[-1])
    others = ids_with_noise_at_least(*noise_of, size, bound, scaled.device, columns.ids)
    if not len(others):
        return ids, score
    more_ids, more_score = _scored(scaled, others, noise_of, columns)
    return torch.cat((ids, more_ids)), torch.cat((score, more_score))


def kept_ids(scaled: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The columns that min-p, top-k and top-p leave of one row of logits / T, ascending.

    Exact: the number of logits looked at grows until the cut lies within them. What a grammar
    forbids, -inf, is never kept.
    """
    floor = torch.finfo(scaled.dtype).min
    if params.min_p > 0.0:
        floor = float(scaled.max() + math.log(params.min_p))
    if 0 < params.top_k < scaled.numel():
        floor = max(floor, float(torch.topk(scaled, params.top_k).values[-1]))
    if params.top_p < 1.0:
        floor = max(floor, _top_p_floor(scaled, params.top_p, floor))
    return torch.nonzero(scaled >= floor).flatten()


def _top_p_floor(scaled: torch.Tensor, top_p: float, floor: float) -> float:
    """The lowest logit of the smallest set of highest logits (>= floor) with mass top_p."""
    size = scaled.numel()
    peak = scaled.max()
    weight = torch.exp((scaled - peak).double())
    wanted = top_p * float(torch.where(scaled >= floor, weight, 0.0).sum())
    count = min(_FIRST_TRY, size)
    while True:
        values = torch.topk(scaled, count).values
        mass = torch.exp((values - peak).double())
        before = torch.cumsum(mass, 0) - mass
        inside = int((before < wanted).sum())
        if inside < count or count == size:
            return float(values[max(inside, 1) - 1])
        count = min(count * 8, size)


def _penalise_(
    row: torch.Tensor, params: SamplingParams, prompt: Sequence[int], output: Sequence[int]
) -> None:
    """`policies.sampling.penalise` in place on one float32 row, shape (V,)."""
    device = row.device
    if params.repetition_penalty != 1.0:
        seen = torch.from_numpy(np.unique(np.asarray([*prompt, *output], np.int64))).to(device)
        old = row[seen]
        row[seen] = torch.where(
            old > 0, old / params.repetition_penalty, old * params.repetition_penalty
        )
    if params.presence_penalty or params.frequency_penalty:
        ids, counts = np.unique(np.asarray(output, np.int64), return_counts=True)
        where = torch.from_numpy(ids).to(device)
        amount = torch.from_numpy(counts.astype(np.float32)).to(device)
        row[where] -= params.frequency_penalty * amount
        row[where] -= params.presence_penalty
    if params.logit_bias:
        ids_, bias = zip(*params.logit_bias, strict=True)
        row.index_add_(
            0, torch.tensor(ids_, device=device), torch.tensor(bias, dtype=row.dtype, device=device)
        )
