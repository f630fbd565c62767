"""Rows that candidates are judged by: places of self-written answers, and full's hidden states.

It knows chats; neither a model nor a candidate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from actors.engine.route import ModelError
from cluster.trio.text.lockstep import ANSWER, Chats


@dataclass(frozen=True, slots=True)
class Rows:
    """ids: (chats, tokens) int64; scored: (chats, tokens) bool, places whose next token is an
    answer's; hidden: (rows, width), full's last hidden states there, in the order of `scored`."""

    ids: torch.Tensor
    scored: torch.Tensor
    hidden: torch.Tensor


def split_rows(parts: Iterable[Chats], counts: tuple[int, ...], tokens: int) -> tuple[Rows, ...]:
    """Disjoint sets of `counts` rows from whole chats in their order, the first `tokens` of each.

    A set ends with the chat in which it is full; `parts` are read as far as is needed.
    ModelError where there are too few.
    """
    chats = (chat for part in parts for chat in _chats(part, tokens))
    sets: list[Rows] = []
    for count in counts:
        taken: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        missing = count
        while missing > 0:
            if (chat := next(chats, None)) is None:
                raise ModelError(f"the text holds {count - missing} rows of {count}; give more")
            ids, scored, hidden = chat
            surplus = scored.nonzero()[missing:]
            scored[surplus] = False
            missing -= int(scored.sum())
            taken.append((ids, scored, hidden[scored]))
        sets.append(Rows(*(_joined([t[i] for t in taken], i < 2) for i in range(3))))
    return tuple(sets)


def _chats(part: Chats, tokens: int) -> Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    for ids, writers, hidden in zip(part.ids, part.writers, part.hidden, strict=True):
        # The last place is the first of a token that may lie beyond the chat.
        scored = torch.zeros(len(ids), dtype=torch.bool)
        scored[:-1] = writers[1:] == ANSWER
        if scored[:tokens].any():
            yield ids[:tokens].long(), scored[:tokens].clone(), hidden[:tokens]


def _joined(parts: list[torch.Tensor], one_a_chat: bool) -> torch.Tensor:
    return torch.stack(parts) if one_a_chat else torch.cat(parts)
