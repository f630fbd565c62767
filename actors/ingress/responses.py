"""OpenAI's response objects as plain dicts, and the `viaserve` object in them.

Layout of the extension. A whole answer has `viaserve` at the top, summed over the choices (`mode`
and `seed` are null where the choices differ), and one of the same shape in each choice, with
`provenance` as [tier, number of tokens] runs if asked for. In a stream it stands at the top of the
chunk that finishes a choice and speaks of that choice; with provenance every chunk of text has
`tiers`, one entry a token, and those of a choice add up to its completion_tokens; beside them
`chars`, how many characters of the chunk's text came out with each token. So has
`token_ids`, if asked for, here and in each choice of a whole answer. `plan` is the last round's,
and why. `exact` is the answer's, not the mode's: whether each of its tokens is the full model's own
choice. A lossy mode
adds `unseen`, the tokens that the full model had not looked at when they were committed, `lenient`,
those that it would have chosen otherwise and let pass, `audit_rows` and `audit_passes`, what looks
in the background cost the full model beside `full_rows` and `full_passes`, and `audit`.
`timeline`, if asked for, stands where an object speaks of one choice; see `timeline_of`.
"""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from actors.ingress.logprobs import ScoredToken, chat_logprobs, completion_logprobs
from actors.ingress.stream import Choice, Delta
from actors.ingress.text import TextCodec
from actors.ingress.timeline import timeline_of
from policies.vocabulary import Tier

_COSTS = (
    "rounds",
    "draft_tokens",
    "draft_judged",
    "slim_rows",
    "slim_passes",
    "full_rows",
    "full_passes",
)
_LOSSES = ("unseen", "lenient")
_LOOKS = ("audit_rows", "audit_passes")
_ENCODER = json.JSONEncoder(separators=(",", ":"))
DONE = b"data: [DONE]\n\n"


def encode(value: dict[str, Any]) -> bytes:
    """JSON in ASCII: no line separator or lone surrogate can reach a client unescaped."""
    return _ENCODER.encode(value).encode()


def sse(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + encode(value) + b"\n\n"


def _common(values: Iterable[Any]) -> Any:
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def summary(choices: list[Choice]) -> dict[str, Any]:
    """The `viaserve` object of these choices together."""
    tokens = Counter(tier for choice in choices for tier in choice.tiers)
    lossy = _sums(choices, (*_LOSSES, *_LOOKS))
    return {
        "mode": _common(choice.mode for choice in choices),
        "plan": _plan(choices[-1]),
        "exact": not any(lossy[name] for name in _LOSSES),
        "seed": _common(choice.spec.sampling.seed for choice in choices),
        **_sums(choices, _COSTS),
        "tokens_by_tier": {tier.value: tokens[tier] for tier in Tier},
        **({} if all(choice.spec.plan.kind.exact for choice in choices) else lossy),
        **({"audit": asdict(choices[-1].audit)} if choices[-1].audit else {}),
    }


def _sums(choices: list[Choice], names: Iterable[str]) -> dict[str, int]:
    return {name: sum(getattr(choice.counters, name) for choice in choices) for name in names}


def _plan(choice: Choice) -> dict[str, Any]:
    plan = choice.plan
    shape = {"kind": plan.kind.value, "gamma": plan.gamma, "block": plan.block}
    return {**shape, "reason": choice.why or "asked for"}


def usage(num_prompt_tokens: int, choices: list[Choice]) -> dict[str, int]:
    """OpenAI's usage; each prompt counts once, whatever n is."""
    num_tokens = sum(choice.num_tokens for choice in choices)
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_tokens,
        "total_tokens": num_prompt_tokens + num_tokens,
    }


@dataclass(frozen=True, slots=True)
class Identity:
    """What every chunk of one answer repeats."""

    request_id: str
    created: int
    model: str
    system_fingerprint: str | None


class Wire(ABC):
    """The parts that chat and text completions spell alike."""

    operation: str
    id_prefix: str
    whole_object: str
    chunk_object: str

    def __init__(
        self,
        identity: Identity,
        codec: TextCodec,
        *,
        include_usage: bool = False,
        provenance: bool = False,
        token_ids: bool = False,
        timeline: bool = False,
        logprobs: bool = False,
    ) -> None:
        self._head = {
            "id": self.id_prefix + identity.request_id,
            "object": self.chunk_object,
            "created": identity.created,
            "model": identity.model,
            "system_fingerprint": identity.system_fingerprint,
        }
        self._tail = {"usage": None} if include_usage else {}
        self._provenance = provenance
        self._token_ids = token_ids
        self._timeline = timeline
        self._logprobs = logprobs
        self._codec = codec

    @property
    def answer_id(self) -> str:
        """The answer's name."""
        return self._head["id"]

    @property
    def model(self) -> str:
        """The model's name."""
        return self._head["model"]

    @abstractmethod
    def opening(self, choice: Choice) -> bytes:
        """What is sent when a choice begins."""
        ...

    def chunk(self, choice: Choice, delta: Delta) -> bytes:
        """One event of a stream; finishes the choice if it has finished."""
        extension: dict[str, Any] = {}
        if self._provenance:
            extension["tiers"] = [tier.value for tier in delta.tiers]
            extension["chars"] = delta.chars
        if self._token_ids:
            extension["token_ids"] = delta.tokens
        if choice.finish is not None:
            extension |= summary([choice]) | self._timed([choice])
        tail = {"viaserve": extension, **self._tail} if extension else self._tail
        part = self._part(choice, delta.text) | self._told(delta.scored)
        return sse({**self._head, "choices": [part], **tail})

    def usage_chunk(self, num_prompt_tokens: int, choices: list[Choice]) -> bytes:
        """The last chunk, if the client asked for usage."""
        return sse({**self._head, "choices": [], "usage": usage(num_prompt_tokens, choices)})

    def whole(self, num_prompt_tokens: int, choices: list[Choice]) -> bytes:
        """The answer to a request that does not stream."""
        whole = {
            **self._head,
            "object": self.whole_object,
            "choices": [
                self._answer(choice)
                | self._told(choice.scored)
                | {"viaserve": self._of_choice(choice)}
                for choice in choices
            ],
            "usage": usage(num_prompt_tokens, choices),
            "viaserve": summary(choices) | self._timed(choices),
        }
        return encode(whole)

    def _told(self, tokens: Sequence[ScoredToken]) -> dict[str, Any]:
        """The choice's `logprobs`, null unless asked for."""
        return {"logprobs": self._spell(tokens) if self._logprobs else None}

    def _timed(self, choices: list[Choice]) -> dict[str, Any]:
        """The `timeline` of one choice, if asked for."""
        return timeline_of(choices[0].stages) if self._timeline and len(choices) == 1 else {}

    @abstractmethod
    def _spell(self, tokens: Sequence[ScoredToken]) -> dict[str, Any]: ...

    def _of_choice(self, choice: Choice) -> dict[str, Any]:
        own = summary([choice]) | self._timed([choice])
        if self._provenance:
            runs = itertools.groupby(choice.tiers)
            own["provenance"] = [[tier.value, len(list(run))] for tier, run in runs]
        if self._token_ids:
            own["token_ids"] = choice.tokens
        return own

    @abstractmethod
    def _part(self, choice: Choice, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def _answer(self, choice: Choice) -> dict[str, Any]: ...


class ChatWire(Wire):
    """chat.completion and chat.completion.chunk."""

    operation = "chat"
    id_prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def opening(self, choice: Choice) -> bytes:
        """The chunk that names the role."""
        part = self._piece(choice.index, {"role": "assistant", "content": ""}, None)
        return sse({**self._head, "choices": [part], **self._tail})

    def _part(self, choice: Choice, text: str) -> dict[str, Any]:
        return self._piece(choice.index, {"content": text} if text else {}, choice.finish)

    @staticmethod
    def _piece(index: int, delta: dict[str, str], finish: str | None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}

    def _spell(self, tokens: Sequence[ScoredToken]) -> dict[str, Any]:
        return chat_logprobs(self._codec, tokens)

    def _answer(self, choice: Choice) -> dict[str, Any]:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        return {
            "index": choice.index,
            "message": message,
            "finish_reason": choice.finish,
        }


class CompletionWire(Wire):
    """text_completion, whole and in chunks."""

    operation = "text_completion"
    id_prefix = "cmpl-"
    whole_object = chunk_object = "text_completion"

    def opening(self, choice: Choice) -> bytes:
        """Nothing: a text completion begins with its text."""
        return b""

    def _part(self, choice: Choice, text: str) -> dict[str, Any]:
        return {
            "index": choice.index,
            "text": text,
            "finish_reason": choice.finish,
        }

    def _spell(self, tokens: Sequence[ScoredToken]) -> dict[str, Any]:
        return completion_logprobs(self._codec, tokens)

    def _answer(self, choice: Choice) -> dict[str, Any]:
        return self._part(choice, choice.text)
