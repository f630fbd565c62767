"""Logarithms of tokens as OpenAI's objects spell them. It knows no requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.ingress.text import TextCodec
from policies.vocabulary import TokenLogprobs

LEAST = -9999.0
"""Stands for minus infinity, which JSON has not; as OpenAI and vLLM do."""


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of an answer. `offset`: characters of the answer before it."""

    token: int
    logprobs: TokenLogprobs
    offset: int


def chat_logprobs(codec: TextCodec, tokens: Sequence[ScoredToken]) -> dict[str, Any]:
    """The `logprobs` object of a chat choice or chunk."""
    content = [
        {
            **_entry(codec, scored.token, scored.logprobs.logprob),
            "top_logprobs": [_entry(codec, *pair) for pair in scored.logprobs.top],
        }
        for scored in tokens
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(codec: TextCodec, tokens: Sequence[ScoredToken]) -> dict[str, Any]:
    """The `logprobs` object of a text completion's choice or chunk. As in OpenAI's API the
    chosen token stands among the best ones even where it is none of them."""
    tops: list[dict[str, float]] = []
    for scored in tokens:
        chosen = (scored.token, scored.logprobs.logprob)
        pairs = [*scored.logprobs.top, chosen] if scored.logprobs.top else []
        tops.append({codec.spell(token)[0]: _finite(value) for token, value in pairs})
    return {
        "text_offset": [scored.offset for scored in tokens],
        "token_logprobs": [_finite(scored.logprobs.logprob) for scored in tokens],
        "tokens": [codec.spell(scored.token)[0] for scored in tokens],
        "top_logprobs": tops if any(tops) else None,
    }


def _entry(codec: TextCodec, token: int, logprob: float) -> dict[str, Any]:
    text, spelled = codec.spell(token)
    return {"token": text, "logprob": _finite(logprob), "bytes": list(spelled)}


def _finite(logprob: float) -> float:
    return max(logprob, LEAST)
