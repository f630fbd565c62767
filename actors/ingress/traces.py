"""The span of a request at the ingress, in OpenTelemetry's words for generative AI.

It holds numbers and names alone: no text of prompts, answers or stop strings.
"""

from __future__ import annotations

import time

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.semconv.attributes import http_attributes as http
from opentelemetry.semconv.attributes import url_attributes as url
from starlette.requests import Request

from actors.ingress.admission import Admitted
from actors.ingress.errors import ClientGone, as_api_error
from actors.ingress.responses import Wire, summary
from actors.ingress.stream import Choice
from infra.tracing import Carrier, Span, Tracer

_COSTS = ("rounds", "draft_tokens", "draft_judged", "slim_rows", "full_rows", "full_passes")


class RequestTrace:
    """Of one request, from when it came in until its answer has ended. Without a `tracer` it
    only keeps the time."""

    def __init__(self, tracer: Tracer | None, request: Request, wire: type[Wire]) -> None:
        self.came_s = time.time()
        self._span: Span | None = None
        self._is_told = self._is_over = False
        if tracer is None:
            return
        self._span = tracer.enter(wire.operation, request.headers.get)
        carrier = dict(self._span.carrier)
        # Sent back by the edge, with errors too.
        request.state.headers = [(b"traceparent", carrier["traceparent"].encode())]
        if not self._span.sampled:
            return
        self._span.set(
            {
                gen_ai.GEN_AI_OPERATION_NAME: wire.operation,
                gen_ai.GEN_AI_PROVIDER_NAME: "viaserve",
                http.HTTP_REQUEST_METHOD: request.method,
                url.URL_PATH: request.url.path,
                "viaserve.request_id": request.state.request_id,
            }
        )

    @property
    def carrier(self) -> Carrier:
        """For the router's spans to be below; empty where the request is not traced."""
        return self._span.carrier if self._span is not None and self._span.sampled else ()

    def admitted(self, admitted: Admitted, wire: Wire) -> None:
        """What is asked for."""
        if self._span is None or not self._span.sampled:
            return
        spec, sessions = admitted.generate.sessions[0], admitted.generate.sessions
        params = spec.sampling.params
        self._span.rename(f"{wire.operation} {wire.model}")
        self._span.set(
            {
                gen_ai.GEN_AI_REQUEST_MODEL: wire.model,
                gen_ai.GEN_AI_RESPONSE_MODEL: wire.model,
                gen_ai.GEN_AI_RESPONSE_ID: wire.answer_id,
                gen_ai.GEN_AI_REQUEST_MAX_TOKENS: spec.max_tokens,
                gen_ai.GEN_AI_REQUEST_TEMPERATURE: params.temperature,
                gen_ai.GEN_AI_REQUEST_TOP_P: params.top_p,
                gen_ai.GEN_AI_REQUEST_TOP_K: params.top_k or None,
                gen_ai.GEN_AI_REQUEST_FREQUENCY_PENALTY: params.frequency_penalty or None,
                gen_ai.GEN_AI_REQUEST_PRESENCE_PENALTY: params.presence_penalty or None,
                gen_ai.GEN_AI_REQUEST_SEED: spec.sampling.seed,
                gen_ai.GEN_AI_REQUEST_STREAM: admitted.stream,
                gen_ai.GEN_AI_OUTPUT_TYPE: "json" if params.grammar else "text",
                gen_ai.GEN_AI_REQUEST_CHOICE_COUNT: len(sessions) if len(sessions) > 1 else None,
                gen_ai.GEN_AI_USAGE_INPUT_TOKENS: admitted.num_prompt_tokens,
            }
        )

    def told(self) -> None:
        """Something of the answer goes out; the first time counts."""
        if self._is_told or self._span is None or not self._span.sampled:
            return
        self._is_told = True
        waited_s = time.time() - self.came_s
        self._span.set({gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: waited_s})

    def answered(self, choices: list[Choice]) -> None:
        """The answer is complete."""
        if self._span is None or not self._span.sampled:
            return
        self._count(self._span, choices)
        self._span.set({http.HTTP_RESPONSE_STATUS_CODE: 200})
        self._end()

    def _count(self, span: Span, choices: list[Choice]) -> None:
        """What there is of it, at its end or where it was cut."""
        whole = summary(choices)
        counted = {f"viaserve.{name}": whole[name] for name in _COSTS}
        by_tier = whole["tokens_by_tier"].items()
        reasons = [choice.finish or "error" for choice in choices]
        span.set(
            {
                gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: sum(choice.num_tokens for choice in choices),
                gen_ai.GEN_AI_RESPONSE_FINISH_REASONS: reasons,
                "viaserve.mode": whole["mode"],
                "viaserve.exact": whole["exact"],
                **counted,
                **{f"viaserve.tokens.{tier}": count for tier, count in by_tier},
            }
        )

    def failed(self, exc: BaseException, choices: list[Choice] | None = None) -> None:
        """It ends in an error, or because the client has left; with what there is of it."""
        if self._span is None or self._is_over:
            return
        if choices is not None:
            self._count(self._span, choices)
        error = as_api_error(exc) if isinstance(exc, Exception) else None
        is_ours = isinstance(exc, Exception) and not isinstance(exc, ClientGone)
        status = error.status if error is not None else 500 if is_ours else None
        # A stream that has begun has had its status.
        shown = 200 if self._is_told else status
        self._span.set({http.HTTP_RESPONSE_STATUS_CODE: shown})
        kind = type(exc).__name__ if error is None else str(status)
        # A client's own fault, or its leaving, is no error of the server's.
        if status is not None and status >= 500:
            self._span.fail(kind)
        else:
            self._span.set({error_attributes.ERROR_TYPE: kind})
        self._end()

    def left(self, choices: list[Choice]) -> None:
        """Nobody reads the rest of a stream, if there is any."""
        self.failed(ClientGone(), choices)

    def _end(self) -> None:
        if self._span is not None and not self._is_over:
            self._is_over = True
            self._span.end()
