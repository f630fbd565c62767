"""Chats that a model writes itself, both sides, many side by side and all of one length.

Every sequence is at the same position, so the cache is one preallocated tensor a layer and a
step is one forward of as many rows as there are chats: on CPU several times the tokens a second
of a batch in `generate`, which copies its cache at every step (docs/decisions.md). The last
hidden states come for free and are kept: they are the teacher's answer to every later question.
It knows a model and turns; no file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, Cache, PreTrainedModel

from cluster.trio.text.turns import Turns

ATTENTION_NAME = "viaserve_lockstep"
ANSWER, QUESTION, GIVEN = 2, 1, 0
"""Who wrote a token: the model as the assistant, the model as the user, or the template and the
openers."""


@dataclass(frozen=True, slots=True)
class Chats:
    """ids: (chats, tokens) int32; writers: (chats, tokens) uint8, of the token at each place;
    hidden: (chats, tokens, width), the last hidden state after the norm at each place."""

    ids: torch.Tensor
    writers: torch.Tensor
    hidden: torch.Tensor

    def take(self, rows: slice | torch.Tensor) -> Chats:
        """Some of the chats."""
        return Chats(self.ids[rows], self.writers[rows], self.hidden[rows])


@dataclass(frozen=True, slots=True)
class Recipe:
    """How chats are sampled. `temperatures`: one is drawn for each answer; questions take
    `question_temperature`. `top_k` bounds both. Turns longer than these many tokens are ended."""

    tokens: int = 512
    temperatures: tuple[float, ...] = (0.0, 0.5, 0.8, 0.8, 1.0)
    question_temperature: float = 0.9
    top_k: int = 64
    longest_question: int = 160
    longest_answer: int = 256


class _LockstepCache(Cache):
    """Keys and values of all chats, (chats, kv_heads, tokens, dim) a layer; `length` is set by
    the loop before each step."""

    def __init__(self, model: PreTrainedModel, chats: int, tokens: int) -> None:
        super().__init__(layers=[])
        config = model.config
        heads = config.num_key_value_heads
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (chats, heads, tokens, dim)
        self.tensors = [
            (
                torch.empty(shape, dtype=model.dtype, device=model.device),
                torch.empty(shape, dtype=model.dtype, device=model.device),
            )
            for _ in range(config.num_hidden_layers)
        ]
        self.length = 0

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self.tensors[layer_idx]
        keys[:, :, self.length] = key_states[:, :, 0]
        values[:, :, self.length] = value_states[:, :, 0]
        end = self.length + 1
        return keys[:, :, :end], values[:, :, :end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """One query a chat over all of its keys. The query heads that share a key head go as rows of
    one product: the stock function would copy keys and values for each."""
    chats, heads, _, dim = query.shape
    if sliding_window is not None:
        key, value = key[:, :, -sliding_window:], value[:, :, -sliding_window:]
    grouped = query.reshape(chats, key.shape[1], -1, dim)
    if softcap is None:
        out = nn.functional.scaled_dot_product_attention(grouped, key, value, scale=scaling)
    else:
        scores = torch.matmul(grouped * scaling, key.transpose(-1, -2)).float()
        weights = torch.softmax(torch.tanh(scores / softcap) * softcap, dim=-1)
        out = torch.matmul(weights.to(value.dtype), value)
    return out.reshape(chats, 1, heads, dim), None


AttentionInterface.register(ATTENTION_NAME, _attend)


class _Scripts:
    """Who speaks in each chat, and what of the template it has still to say."""

    def __init__(
        self,
        turns: Turns,
        openers: Sequence[Sequence[int]],
        recipe: Recipe,
        chats: int,
        rng: np.random.Generator,
    ) -> None:
        self._turns, self._openers, self._recipe, self._rng = turns, openers, recipe, rng
        self._queues = [deque(turns.opening) for _ in range(chats)]
        self._answering = np.zeros(chats, bool)
        self._spoken = np.zeros(chats, int)
        self.temperatures = np.full(chats, recipe.question_temperature)
        if not turns.chat:
            self._answering[:] = True
            self.temperatures = rng.choice(recipe.temperatures, size=chats)
        for queue in self._queues:
            queue.extend(self._opener() if turns.chat else ())

    def say(self, chosen: Sequence[int]) -> tuple[list[int], list[int]]:
        """The next token of each chat and its writer; `chosen` is what the model would say."""
        said = [self._say(chat, token) for chat, token in enumerate(chosen)]
        return [token for token, _ in said], [writer for _, writer in said]

    def _say(self, chat: int, token: int) -> tuple[int, int]:
        queue = self._queues[chat]
        if not queue and self._turns.chat and self._spoken[chat] >= self._longest(chat):
            queue.extend(self._turn_over(chat))
        if queue:
            return queue.popleft(), GIVEN
        writer = ANSWER if self._answering[chat] else QUESTION
        self._spoken[chat] += 1
        if token in self._turns.ends:
            part = self._turn_over(chat)
            queue.extendleft(reversed(part[1:] if part[0] == token else part))
        return token, writer

    def _longest(self, chat: int) -> int:
        recipe = self._recipe
        return recipe.longest_answer if self._answering[chat] else recipe.longest_question

    def _turn_over(self, chat: int) -> tuple[int, ...]:
        """The other side speaks; returns what the template puts between. An opener, if one is
        drawn, comes after that."""
        answering = self._answering[chat] = not self._answering[chat]
        self._spoken[chat] = 0
        if answering:
            self.temperatures[chat] = self._rng.choice(self._recipe.temperatures)
            return self._turns.to_answer
        self.temperatures[chat] = self._recipe.question_temperature
        return self._turns.to_question + self._opener()

    def _opener(self) -> tuple[int, ...]:
        if not self._openers:
            return ()
        return tuple(self._openers[int(self._rng.integers(len(self._openers)))])


def write_chats(
    model: PreTrainedModel,
    turns: Turns,
    openers: Sequence[Sequence[int]],
    recipe: Recipe,
    chats: int,
    seed: int,
    step: Callable[[], None] = lambda: None,
) -> Chats:
    """`chats` chats of `recipe.tokens` tokens each. `model` was loaded with ATTENTION_NAME;
    `openers`: beginnings of questions, of which one is drawn for each (an empty one leaves the
    question to the model); `step` is called after each token. The same seed gives the
    same chats on the same machine."""
    rng = np.random.default_rng(seed)
    scripts = _Scripts(turns, openers, recipe, chats, rng)
    cache = _LockstepCache(model, chats, recipe.tokens)
    device = model.device
    ids = torch.empty((chats, recipe.tokens), dtype=torch.int32)
    writers = torch.empty((chats, recipe.tokens), dtype=torch.uint8)
    width = model.config.hidden_size
    hidden = torch.empty((chats, recipe.tokens, width), dtype=model.dtype)
    said, by = scripts.say([-1] * chats)
    with torch.inference_mode():
        for at in range(recipe.tokens):
            ids[:, at] = torch.tensor(said)
            writers[:, at] = torch.tensor(by)
            cache.length = at
            out = model.model(
                input_ids=torch.tensor(said, device=device)[:, None],
                position_ids=torch.full((chats, 1), at, device=device),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, 0]
            hidden[:, at] = out.cpu()
            logits = model.lm_head(out).float()
            chosen = _sample(logits, scripts.temperatures, recipe.top_k, rng)
            said, by = scripts.say(chosen)
            step()
    return Chats(ids, writers, hidden)


def _sample(
    logits: torch.Tensor, temperatures: np.ndarray, top_k: int, rng: np.random.Generator
) -> list[int]:
    """One id a row among its `top_k` best, by the maximum of noisy logits."""
    best, ids = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    noise = torch.from_numpy(rng.gumbel(size=tuple(best.shape))).float()
    scale = torch.from_numpy(temperatures).float()[:, None]
    pick = (best.cpu() + scale * noise).argmax(dim=-1, keepdim=True)
    return ids.cpu().gather(1, pick)[:, 0].tolist()
