"""The request bodies: shapes and ranges that need neither settings nor a tokenizer.

Strict: an unknown field, or a value that JSON coercion would have to guess at, is an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, from_json

from actors.ingress.errors import ApiError, invalid
from actors.ingress.neutral import drop_neutral, drop_neutral_of_message

MAX_LOGPROBS = 20


def _bad(message: str) -> PydanticCustomError:
    return PydanticCustomError("invalid", "{reason}", {"reason": message})


def _stop(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise _bad("should be a string or a list of strings")
    if "" in stops:
        raise _bad("a stop string must not be empty")
    return stops


def _prompt(value: Any) -> Any:
    """As a list of prompts, all of them texts or all of them id lists."""
    prompts = [value] if isinstance(value, str) or _is_id_list(value) else value
    if not isinstance(prompts, list) or not prompts:
        raise _bad("should be a string or a non-empty list")
    if not (all(isinstance(prompt, str) for prompt in prompts) or all(map(_is_id_list, prompts))):
        raise _bad("a list should hold only strings, only token ids, or only lists of token ids")
    return prompts


def _is_id_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def _content(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise _bad('should be a string or a non-empty list of {"type": "text", "text": ...}')
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise _bad("only content parts of type 'text' are supported")
        if part.keys() != {"type", "text"} or not isinstance(part["text"], str):
            raise _bad("a text part holds exactly 'type' and a string 'text'")
    return "\n".join(part["text"] for part in value)


def _logit_bias(value: Any) -> dict[int, float]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _bad("should be an object that maps token ids to numbers")
    for key, bias in value.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10):
            raise _bad("its keys should be token ids in decimal digits")
        if type(bias) not in (int, float) or not -100 <= bias <= 100:
            raise _bad("its values should be numbers from -100 to 100")
    biases = {int(key): float(bias) for key, bias in value.items()}
    if len(biases) < len(value):
        raise _bad("names one token id twice")
    return biases


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class StreamOptions(_Strict):
    """OpenAI's stream_options."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Extension(_Strict):
    """The `viaserve` object of a request; see `admission` for the bounds."""

    mode: Literal["auto", "off", "two_tier", "three_tier", "cascade", "via"] = "auto"
    gamma: int | None = None
    block: int | None = None
    alpha: float | None = None
    gate: Literal["ratio", "margin"] | None = None
    theta_accept: float | None = None
    theta_escalate: float | None = None
    margin: float | None = None
    provenance: bool = False
    token_ids: bool = False
    timeline: bool = False


class JsonSchema(_Strict):
    """OpenAI's json_schema. The schema binds whether `strict` or not; `name` and `description`
    are not shown to the model."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    definition: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(_Strict):
    """OpenAI's response_format; see `structured`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise _bad("'json_schema' goes with type 'json_schema', and only with it")
        return self


class GenerationBody(_Strict):
    """What both endpoints share."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    stop: Annotated[list[str], PlainValidator(_stop)] = []
    stop_token_ids: list[int] | None = Field(None, fail_fast=True)
    ignore_eos: bool | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: Annotated[dict[int, float], PlainValidator(_logit_bias)] = {}
    response_format: ResponseFormat | None = None
    viaserve: Extension | None = None

    @property
    def asked_max_tokens(self) -> int | None:
        """The bound on the answer that the client gave."""
        return self.max_tokens

    @property
    def default_max_tokens(self) -> int | None:
        """The bound where the client gave none; None leaves it to the settings."""
        return None

    @property
    def num_logprobs(self) -> int | None:
        """How many best tokens' logarithms are wanted beside each chosen one's; None: none."""
        return None


class Message(_Strict):
    """One chat message; `name` is accepted and not shown to the model."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, PlainValidator(_content)]
    name: str | None = None


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, fail_fast=True)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)

    @field_validator("top_logprobs")
    @classmethod
    def _with_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and not info.data.get("logprobs"):
            raise _bad("needs logprobs: true")
        return value

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_bound(cls, value: int | None, info: ValidationInfo) -> int | None:
        older = info.data.get("max_tokens")
        if value is not None and older is not None and value != older:
            raise _bad("contradicts max_tokens; send one of the two")
        return value

    @property
    def asked_max_tokens(self) -> int | None:
        """`max_completion_tokens`, or the older name for it."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """See GenerationBody."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    prompt: Annotated[list[str] | list[list[int]], PlainValidator(_prompt)]
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)

    @property
    def default_max_tokens(self) -> int | None:
        """OpenAI's default for completions."""
        return 16

    @property
    def num_logprobs(self) -> int | None:
        """See GenerationBody."""
        return self.logprobs


Body = TypeVar("Body", bound=GenerationBody)


def parse(raw: bytes, kind: type[Body]) -> Body:
    """The body as a `kind`. Raises ApiError 400 with one readable line."""
    try:
        fields = from_json(raw, allow_inf_nan=False)
    except ValueError as exc:
        raise invalid(f"The body is not valid JSON: {exc}.", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise invalid("The body should be a JSON object.", code="invalid_json")
    drop_neutral(fields)
    messages = fields.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        if isinstance(message, dict):
            drop_neutral_of_message(message, index)
    try:
        return kind.model_validate(fields)
    except ValidationError as exc:
        raise _readable(exc) from None


def _readable(exc: ValidationError) -> ApiError:
    first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"])[:128]
    match first["type"]:
        case "missing":
            return invalid(f"'{param}' is required.", param, "missing_required_parameter")
        case "extra_forbidden":
            message = f"'{param}' is not known or not supported here; leave it out."
            return invalid(message, param, "unknown_parameter")
        case "model_type":
            return invalid(f"'{param}' should be an object.", param)
        case _:
            return invalid(f"'{param}': {first['msg']}.", param)
