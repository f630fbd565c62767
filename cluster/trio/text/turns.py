"""What stands between the turns of a chat, as token ids, from the tokenizer's own template.

It knows a tokenizer; no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.engine.route import ModelError

_QUESTION, _ANSWER, _NEXT = "QUESTIONPLACE", "ANSWERPLACE", "NEXTPLACE"


@dataclass(frozen=True, slots=True)
class Turns:
    """`opening` stands before the first question, `to_answer` between a question and its
    answer, `to_question` between an answer and the next question. `ends`: ids that end a turn.

    A model without a chat template writes plain text: the last two are empty.
    """

    opening: tuple[int, ...]
    to_answer: tuple[int, ...]
    to_question: tuple[int, ...]
    ends: frozenset[int]

    @property
    def chat(self) -> bool:
        """Whether there are turns at all."""
        return bool(self.to_answer)


def turns_of(tokenizer: Any, ends: Sequence[int]) -> Turns:
    """The turns of a tokenizer's chat template; plain text where it has none, or one that puts
    no token between turns. ModelError where there is no token to begin a text with."""
    if not getattr(tokenizer, "chat_template", None):
        return Turns(_first(tokenizer), (), (), frozenset())
    chat = [
        {"role": "user", "content": _QUESTION},
        {"role": "assistant", "content": _ANSWER},
        {"role": "user", "content": _NEXT},
    ]
    text: str = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    opening, rest = text.split(_QUESTION, 1)
    to_answer, rest = rest.split(_ANSWER, 1)
    to_question, _ = rest.split(_NEXT, 1)

    def ids(part: str) -> tuple[int, ...]:
        return tuple(tokenizer(part, add_special_tokens=False)["input_ids"])

    if not ids(to_answer):
        return Turns(_first(tokenizer), (), (), frozenset())
    begin = ids(opening) or _first(tokenizer)
    return Turns(begin, ids(to_answer), ids(to_question), frozenset(ends))


def _first(tokenizer: Any) -> tuple[int, ...]:
    """The token that a text begins with."""
    for found in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if found is not None:
            return (found,)
    raise ModelError("the tokenizer has no bos and no eos token: no text can begin")
