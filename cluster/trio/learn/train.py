"""The training loop that healing and distillation share: a student learns full's distribution.

Resumable: a checkpoint beside the output holds the trained parameters, the optimiser and the
place in the text; a job that was killed goes on from there and sees the same batches. It knows
a student by its parameters and its hidden states; not what they are for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from actors.engine.route import ModelError
from cluster.trio.arithmetic import fast_dtype
from cluster.trio.begun import other_settings
from cluster.trio.learn.losses import loss_and_gradient
from cluster.trio.likeness import Likeness, likeness, mean
from cluster.trio.teacher import Head
from cluster.trio.tensors import written_whole
from cluster.trio.text.corpus import Corpus
from cluster.trio.text.lockstep import ANSWER, Chats

_CHUNK = 1024
"""Rows of logits held at a time."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """`tokens`: read in all, several times through the text if need be; `batch`: chats of a step;
    `rate`: peak learning rate, warmed up over `warmup` of the steps, then a cosine to a tenth."""

    tokens: int
    batch: int = 12
    rate: float = 1e-3
    warmup: float = 0.03
    weight_decay: float = 0.05
    loss: str = "kl"
    seed: int = 0
    checkpoint_s: float = 60.0


@dataclass(slots=True)
class Student:
    """`hidden`: a batch -> last hidden states after the norm, (chats, tokens, width); `head`:
    what it chooses with; `trained`: its parameters that learn, by name. `again`: of a student
    that reads hidden states: the batch and the states just given -> those where it has read its
    own in full's place, as it does while it proposes."""

    hidden: Callable[[Chats], torch.Tensor]
    head: Head
    trained: Mapping[str, nn.Parameter]
    again: Callable[[Chats, torch.Tensor], torch.Tensor] | None = None

    def with_head(self, head: Head) -> Student:
        """The same student with another head."""
        return replace(self, head=head)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the state of a job is kept, and by which settings besides its schedule it is known:
    a file of others is refused, not gone on with."""

    checkpoint: Path
    settings: Mapping[str, Any]


Progress = Callable[[int, float], None]
"""Told the tokens read so far and the loss, in nats or as a distance."""


def check_batch(corpus: Corpus, shards: list[int], batch: int) -> None:
    """ModelError where a shard holds less than one batch."""
    if (chats := corpus.shape(shards[0])[0]) < batch:
        raise ModelError(
            f"corpus {corpus.folder}: a batch of {batch}, but shards of {chats} chats; give --batch"
            f" {chats} or less"
        )


def train(
    student: Student,
    teacher: Head,
    corpus: Corpus,
    shards: list[int],
    schedule: Schedule,
    origin: Origin,
    progress: Progress = lambda tokens, loss: None,
) -> None:
    """Train `student.trained` in place on the answers in `shards`. `teacher` and the student's
    head know the same ids. Raises ModelError where the checkpoint is of another job."""
    parameters = list(student.trained.values())
    optimiser = torch.optim.AdamW(
        parameters, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=schedule.weight_decay
    )
    checkpoint = origin.checkpoint
    identity = {**_identity(schedule), "shards": shards, **origin.settings}
    step = _resume(checkpoint, student, optimiser, identity)
    saved = time.monotonic()
    for at, chats, steps in _batches(corpus, shards, schedule, step):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate * _rate(at / steps, schedule.warmup)
        loss = _backward(student, teacher, chats, schedule.loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        progress((at + 1) * chats.ids.numel(), loss)
        if time.monotonic() - saved > schedule.checkpoint_s or at + 1 == steps:
            _save(checkpoint, student, optimiser, identity, at + 1)
            saved = time.monotonic()


@torch.inference_mode()
def held_out(
    student: Student, teacher: Head, chats: Chats, temperature: float, batch: int = 8
) -> Likeness:
    """How like full the student chooses on the answers of text that it never learned from."""
    parts = []
    for begin in range(0, len(chats.ids), batch):
        part = chats.take(slice(begin, begin + batch))
        mine, theirs = _answer_rows(_computed(student.hidden, part), part)
        if len(mine):
            logits = student.head.logits(mine), teacher.logits(theirs)
            parts.append(likeness(*logits, temperature))
    return mean(parts)


def _backward(student: Student, teacher: Head, chats: Chats, kind: str) -> float:
    """Gradients of one batch, the head's chunk by chunk; returns the mean loss."""
    states = _computed(student.hidden, chats)
    mine, theirs = _answer_rows(states, chats)
    if student.again is not None:
        # Half of the batch will do: there is more to learn from full's states than from its own.
        half = slice(-(-len(states) // 2))
        part = chats.take(half)
        more = _answer_rows(_computed(student.again, part, states[half].detach()), part)
        mine, theirs = torch.cat((mine, more[0])), torch.cat((theirs, more[1]))
    if not len(mine):
        return 0.0
    at_hidden = torch.empty(mine.shape, dtype=torch.float32, device=mine.device)
    total = 0.0
    with torch.no_grad():
        for begin in range(0, len(mine), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            logits, wanted = student.head.logits(mine[part]), teacher.logits(theirs[part])
            loss, gradient = loss_and_gradient(logits, wanted, kind)
            share = len(logits) / len(mine)
            at_hidden[part] = student.head.gradient(logits, gradient) * share
            total += loss * share
    mine.backward(at_hidden.to(mine.dtype))
    return total


def _computed(forward: Callable[..., torch.Tensor], chats: Chats, *more: Any) -> torch.Tensor:
    """In the format that the device computes fast."""
    device = chats.ids.device
    fast = fast_dtype(device)
    with torch.autocast(device.type, fast, enabled=fast is not torch.float32):
        return forward(chats, *more)


def _answer_rows(hidden: torch.Tensor, chats: Chats) -> tuple[torch.Tensor, torch.Tensor]:
    """Student's and full's hidden states, (rows, width), at the places before an answer's ids."""
    wanted = chats.writers[:, 1:] == ANSWER
    return hidden[:, :-1][wanted], chats.hidden[:, :-1][wanted]


def _rate(done: float, warmup: float) -> float:
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _batches(
    corpus: Corpus, shards: list[int], schedule: Schedule, first: int
) -> Iterator[tuple[int, Chats, int]]:
    """(step, batch, steps in all) from step `first` on; the same whatever `first` is."""
    chats, tokens = corpus.shape(shards[0])
    per_shard = chats // schedule.batch
    steps = max(schedule.tokens // (schedule.batch * tokens), 1)
    at = first
    while at < steps:
        visit = at // per_shard
        epoch, place = divmod(visit, len(shards))
        order = np.random.default_rng((schedule.seed, epoch)).permutation(shards)
        shard = corpus.read(int(order[place]))
        rows = np.random.default_rng((schedule.seed, 1, visit)).permutation(chats)
        for i in range(at % per_shard, per_shard):
            if at >= steps:
                return
            chosen = torch.from_numpy(rows[i * schedule.batch : (i + 1) * schedule.batch])
            yield at, shard.take(chosen), steps
            at += 1


def _resume(
    path: Path,
    student: Student,
    optimiser: torch.optim.Optimizer,
    identity: Mapping[str, Any],
) -> int:
    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
        begun_with = state["identity"]
    except Exception as error:  # there is nothing that a torn file does not raise
        raise ModelError(f"checkpoint {path}: cannot be read; delete it to begin anew") from error
    if (differs := other_settings(begun_with, identity)) is not None:
        raise ModelError(f"checkpoint {path}: {differs}; delete it to begin anew")
    for name, parameter in student.trained.items():
        parameter.data.copy_(state["parameters"][name])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"]


def _save(
    path: Path,
    student: Student,
    optimiser: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    step: int,
) -> None:
    state = {
        "identity": dict(identity),
        "step": step,
        "parameters": {name: p.detach() for name, p in student.trained.items()},
        "optimiser": optimiser.state_dict(),
    }
    with written_whole(path) as part:
        torch.save(state, part)


def _identity(schedule: Schedule) -> dict[str, Any]:
    given = asdict(schedule)
    del given["checkpoint_s"]
    return given
