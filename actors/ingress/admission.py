"""From a request body to the sessions of a GenerateRequest, or the reason why not.

The noise of an answer is keyed by (seed, k), with k the answer's number within its own
prompt, 0 to n-1: so seed, prompt, parameters and k determine an answer, wherever the
prompt stands in a list. A request without a seed gets a fresh one for each prompt, so that a
prompt listed twice is sampled twice; the answer names the seed that was used.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TypeVar

from actors.ingress.errors import ApiError, invalid
from actors.ingress.plans import is_auto, plan_of
from actors.ingress.schema import ChatBody, CompletionBody, Extension, GenerationBody
from actors.ingress.settings import IngressSettings
from actors.ingress.structured import grammar_of
from actors.ingress.text import TextCodec
from actors.messages import GenerateRequest
from policies.vocabulary import SamplingParams, SamplingSpec, SessionSpec

# Below this the division of logits by the temperature overflows before it changes an argmax.
_GREEDY_BELOW = 1e-5

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may run, and what the answer needs to know of it.

    The session of answer k to prompt i stands at i * n + k, as the choice does in the answer.
    """

    generate: GenerateRequest
    stops: tuple[str, ...]
    num_prompt_tokens: int
    stream: bool
    include_usage: bool
    provenance: bool
    token_ids: bool
    timeline: bool
    logprobs: bool


def admit_chat(
    body: ChatBody, codec: TextCodec, settings: IngressSettings, request_id: str
) -> Admitted:
    """One conversation, n choices. Raises ApiError."""
    _check_model(body.model, settings)
    _check_choices(body, 1, settings)
    messages = [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": message.content,
        }
        for message in body.messages
    ]
    _check_chars(sum(len(m["content"]) for m in messages), "messages", codec, settings)
    prompt = tuple(codec.chat(messages))
    return _admit(body, "messages", [prompt], settings, request_id)


def admit_completion(
    body: CompletionBody, codec: TextCodec, settings: IngressSettings, request_id: str
) -> Admitted:
    """One or more prompts, n choices each. Raises ApiError."""
    _check_model(body.model, settings)
    _check_choices(body, len(body.prompt), settings)
    prompts: list[tuple[int, ...]] = []
    for prompt in body.prompt:
        if isinstance(prompt, str):
            _check_chars(len(prompt), "prompt", codec, settings)
            prompts.append(tuple(codec.encode(prompt)))
        else:
            _check_ids(prompt, "prompt", settings)
            prompts.append(tuple(prompt))
    return _admit(body, "prompt", prompts, settings, request_id)


def _admit(
    body: GenerationBody,
    param: str,
    prompts: list[tuple[int, ...]],
    settings: IngressSettings,
    request_id: str,
) -> Admitted:
    if body.stream_options is not None and not body.stream:
        raise invalid("'stream_options' needs 'stream': true.", "stream_options")
    _check_stops(body, settings)
    extension = body.viaserve or Extension()
    plan = plan_of(extension, settings)
    if body.num_logprobs is not None and not plan.kind.exact:
        message = f"Logprobs need an exact mode; '{plan.kind}' is lossy."
        raise invalid(message, "logprobs", "unsupported_parameter")
    params = _sampling(body, settings)
    stop_ids = frozenset(body.stop_token_ids or ())
    if not body.ignore_eos:
        stop_ids |= settings.eos_ids
    # A client may reuse its request id; sessions must not share theirs.
    unique_id = f"{request_id}.{secrets.token_hex(4)}"
    sessions: list[SessionSpec] = []
    for prompt in prompts:
        max_tokens = _max_tokens(body, len(prompt), param, settings)
        seed = secrets.randbits(63) if body.seed is None else body.seed
        for k in range(body.n or 1):
            sessions.append(
                SessionSpec(
                    session_id=f"{unique_id}/{len(sessions)}",
                    tokens=prompt,
                    sampling=SamplingSpec(params, seed, k, len(prompt)),
                    max_tokens=max_tokens,
                    stop_ids=stop_ids,
                    plan=plan,
                    num_logprobs=body.num_logprobs,
                    auto=is_auto(extension, settings),
                )
            )
    return Admitted(
        generate=GenerateRequest(unique_id, tuple(sessions)),
        stops=tuple(body.stop),
        num_prompt_tokens=sum(map(len, prompts)),
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        provenance=extension.provenance,
        token_ids=extension.token_ids,
        timeline=extension.timeline,
        logprobs=body.num_logprobs is not None,
    )


def _check_model(model: str, settings: IngressSettings) -> None:
    if model not in settings.served_names:
        raise model_not_found(model, settings)


def model_not_found(model: str, settings: IngressSettings) -> ApiError:
    """404 that names the models served."""
    names = ", ".join(f"'{name}'" for name in settings.served_names)
    message = f"The model '{model[:128]}' is not served here; use {names}."
    return ApiError(404, message, param="model", code="model_not_found")


def _check_choices(body: GenerationBody, num_prompts: int, settings: IngressSettings) -> None:
    n = body.n or 1
    if n * num_prompts > settings.max_choices:
        asked = f"n = {n}" if num_prompts == 1 else f"n = {n} for {num_prompts} prompts"
        message = f"{asked} is more than the {settings.max_choices} choices of one request."
        raise invalid(message, "n" if num_prompts <= n else "prompt")


def _check_chars(num_chars: int, param: str, codec: TextCodec, settings: IngressSettings) -> None:
    least = codec.least_tokens(num_chars)
    if least > settings.max_context:
        raise invalid(
            f"The context holds {settings.max_context} tokens; this request's {num_chars}"
            f" characters are at least {least}. Shorten it.",
            param,
            "context_length_exceeded",
        )


def _check_ids(ids: list[int], param: str, settings: IngressSettings) -> None:
    if ids and not 0 <= min(ids) <= max(ids) < settings.vocab_size:
        raise invalid(f"'{param}': token ids go from 0 to {settings.vocab_size - 1}.", param)


def _check_stops(body: GenerationBody, settings: IngressSettings) -> None:
    if len(body.stop) > settings.max_stop_strings:
        raise invalid(f"'stop' holds at most {settings.max_stop_strings} strings.", "stop")
    if any(len(stop) > settings.max_stop_chars for stop in body.stop):
        raise invalid(f"A stop string has at most {settings.max_stop_chars} characters.", "stop")
    stop_ids = body.stop_token_ids or []
    if len(stop_ids) > settings.max_stop_ids:
        message = f"'stop_token_ids' holds at most {settings.max_stop_ids} ids."
        raise invalid(message, "stop_token_ids")
    _check_ids(stop_ids, "stop_token_ids", settings)


def _max_tokens(
    body: GenerationBody, prompt_len: int, param: str, settings: IngressSettings
) -> int:
    if prompt_len == 0:
        raise invalid(f"'{param}' has no tokens; send at least one.", param)
    room = settings.max_context - prompt_len
    asked = body.asked_max_tokens
    if room < 1 or (asked is not None and asked > room):
        answer = "one for the answer" if asked is None else f"{asked} for the answer (max_tokens)"
        raise invalid(
            f"The context holds {settings.max_context} tokens, prompt and answer together; this "
            f"request has {prompt_len} in the prompt and asks for {answer}. Shorten one of them.",
            param,
            "context_length_exceeded",
        )
    return asked or min(room, settings.default_max_tokens or body.default_max_tokens or room)


def _sampling(body: GenerationBody, settings: IngressSettings) -> SamplingParams:
    defaults = settings.sampling
    bias = defaults.logit_bias
    if body.logit_bias:
        if len(body.logit_bias) > settings.max_logit_biases:
            message = f"'logit_bias' holds at most {settings.max_logit_biases} token ids."
            raise invalid(message, "logit_bias")
        _check_ids(list(body.logit_bias), "logit_bias", settings)
        bias = tuple(sorted(body.logit_bias.items()))
    temperature = _given(body.temperature, defaults.temperature)
    top_k = _given(body.top_k, defaults.top_k)
    return SamplingParams(
        temperature=temperature if temperature >= _GREEDY_BELOW else 0.0,
        # vLLM's -1 is off as well.
        top_k=min(max(top_k, 0), settings.vocab_size),
        top_p=_given(body.top_p, defaults.top_p),
        min_p=_given(body.min_p, defaults.min_p),
        repetition_penalty=_given(body.repetition_penalty, defaults.repetition_penalty),
        presence_penalty=_given(body.presence_penalty, defaults.presence_penalty),
        frequency_penalty=_given(body.frequency_penalty, defaults.frequency_penalty),
        logit_bias=bias,
        grammar=grammar_of(body.response_format, settings),
    )


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value
