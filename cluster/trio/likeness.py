"""How like the full model a smaller one chooses: the measures that search and training use.

Rows of two distributions in, figures out. It knows no model and no text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch

TOP = 512
"""Tokens of a row that `coupling` tells apart; all others count as one more token."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """Means over rows of a student's distribution against full's.

    `agreement`: share of equal argmax; `coupling`: M of DESIGN section 2, the chance that both
    choose the same token under shared noise; `overlap`: 1 - TV, what rejection sampling would
    accept; `kl`: KL(full || student) in nats; `one_sided`: R of arXiv 2606.12243, see
    `one_sided`. `rows` is how many.
    """

    rows: int
    agreement: float
    coupling: float
    overlap: float
    kl: float
    one_sided: float


def likeness(
    student: torch.Tensor, full: torch.Tensor, temperature: float = 1.0, chunk: int = 256
) -> Likeness:
    """Of raw logits, both (rows, V), of any float type; `agreement`, `kl` and `one_sided` are
    taken without temperature. A token that the student cannot say has logit -inf there."""
    assert student.shape == full.shape, (student.shape, full.shape)
    parts = [
        _of_rows(s.float(), f.float(), temperature)
        for s, f in zip(student.split(chunk), full.split(chunk), strict=True)
    ]
    return mean(parts)


def mean(parts: Iterable[Likeness]) -> Likeness:
    """Of several sets of rows, by their sizes."""
    parts = list(parts)
    rows = sum(p.rows for p in parts)
    values = (sum(getattr(p, f.name) * p.rows for p in parts) / rows for f in fields(Likeness)[1:])
    return Likeness(rows, *values)


def _of_rows(student: torch.Tensor, full: torch.Tensor, temperature: float) -> Likeness:
    log_s, log_f = student.log_softmax(-1), full.log_softmax(-1)
    warm_s, warm_f = (student / temperature).softmax(-1), (full / temperature).softmax(-1)
    divergence = torch.where(log_f.exp() > 0, log_f.exp() * (log_f - log_s), 0.0)
    return Likeness(
        rows=len(student),
        agreement=(student.argmax(-1) == full.argmax(-1)).float().mean().item(),
        coupling=coupling(warm_s, warm_f).mean().item(),
        overlap=torch.minimum(warm_s, warm_f).sum(-1).mean().item(),
        kl=divergence.sum(-1).clamp(max=1e4).mean().item(),
        one_sided=one_sided(log_s, log_f).clamp(max=1e4).mean().item(),
    )


def one_sided(
    log_slim: torch.Tensor, log_full: torch.Tensor, alpha: float = 0.5, beta: float = 0.3
) -> torch.Tensor:
    """R^{alpha,beta}(full || slim) of arXiv 2606.12243 (eq. 9-13), one figure a row:

    sum_v slim(v) relu(log(1 - alpha) + log slim(v) - log full(v))
      + sum_v full(v) relu(log beta + log slim(v) - log full(v)).

    It punishes over-confidence of slim only: two distributions with different argmax can
    have R = 0. Logarithms of probabilities, (rows, V).
    """
    over = log_slim - log_full
    first = torch.relu(torch.log(torch.tensor(1 - alpha)) + over) * log_slim.exp()
    second = torch.relu(torch.log(torch.tensor(beta)) + over) * log_full.exp()
    # A token that slim cannot say adds nothing; inf * 0 would be no number.
    return torch.where(torch.isfinite(log_slim), first + second, 0.0).sum(-1)


def coupling(one: torch.Tensor, other: torch.Tensor, top: int = TOP) -> torch.Tensor:
    """M(p, q) = sum_v 1 / sum_u max(p_u / p_v, q_u / q_v) of each row; probabilities (rows, V).

    (Daliri, Musco, Suresh, arXiv 2408.07978.) Over the `top` tokens of the larger of both
    probabilities and the rest as one token. Sorted by p/q, the inner maximum is p's part from
    v on and q's part before it, so a row takes a sort instead of V squared.
    """
    top = min(top, one.shape[-1])
    ids = torch.maximum(one, other).topk(top, dim=-1).indices
    p, q = (_lumped(probs.gather(-1, ids)) for probs in (one, other))
    order = (p.log() - q.log()).nan_to_num(0.0).sort(dim=-1).indices
    p, q = p.gather(-1, order), q.gather(-1, order)
    p_from = p.flip(-1).cumsum(-1).flip(-1)
    q_before = q.cumsum(-1) - q
    cost = p_from / p + q_before / q
    return torch.where((p > 0) & (q > 0), 1 / cost, 0.0).sum(-1).float()


def _lumped(probs: torch.Tensor) -> torch.Tensor:
    probs = probs.double()
    rest = (1 - probs.sum(-1, keepdim=True)).clamp(min=0)
    return torch.cat([probs, rest], dim=-1)
