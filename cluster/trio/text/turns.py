"""What stands between the turns of a chat, as token ids, from the tokenizer's own template.

It knows a tokenizer; no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    """The turns of a tokenizer's chat template; plain text where it has none."""
    if not getattr(tokenizer, "chat_template", None):
        first = tokenizer.bos_token_id
        return Turns((first if first is not None else tokenizer.eos_token_id,), (), (), frozenset())
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

    return Turns(ids(opening), ids(to_answer), ids(to_question), frozenset(ends))
