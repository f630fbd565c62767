"""The losses of training by their gradient at the logits.

Written out instead of left to autograd: a row of logits is many times as wide as a hidden
state, and most of a small student's time would go into copies of it. Tested against autograd.
"""

from __future__ import annotations

import torch

LOSSES = ("kl", "tv", "mixed")


def loss_and_gradient(
    student: torch.Tensor, full: torch.Tensor, kind: str
) -> tuple[float, torch.Tensor]:
    """Of logits (rows, V), any float type: the mean over rows and its gradient by `student`,
    float32 (rows, V).

    `kl`: KL(full || student), gradient student - full. `tv`: the total variation, the share of
    tokens that rejection sampling refuses; its gradient is student (s - <student, s>) with
    s = sign(student - full) / 2. `mixed`: their sum.
    """
    rows = len(student)
    log_student = student.float().log_softmax(-1)
    log_full = full.float().log_softmax(-1)
    probs, target = log_student.exp(), log_full.exp()
    apart = probs - target
    value, gradient = 0.0, torch.zeros_like(probs)
    if kind in ("kl", "mixed"):
        value += torch.dot(target.flatten(), log_full.sub_(log_student).flatten()).item()
        gradient += apart
    if kind in ("tv", "mixed"):
        value += 0.5 * apart.abs().sum().item()
        sign = apart.sign_().mul_(0.5)
        gradient += probs * (sign - (probs * sign).sum(-1, keepdim=True))
    return value / rows, gradient.div_(rows)
