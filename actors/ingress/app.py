"""The OpenAI-compatible HTTP application: routes, and how a request runs through the parts.

It knows the backend only as a callable, and nothing of processes or devices.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from actors.ingress.admission import (
    Admitted,
    admit_chat,
    admit_completion,
    model_not_found,
)
from actors.ingress.edge import (
    OPEN_PATHS,
    Edge,
    EventStream,
    error_response,
    explain,
    read_body,
    while_connected,
)
from actors.ingress.errors import ApiError, as_api_error
from actors.ingress.playground import page_routes
from actors.ingress.responses import DONE, ChatWire, CompletionWire, Identity, Wire, encode, sse
from actors.ingress.schema import Body, ChatBody, CompletionBody, parse
from actors.ingress.settings import IngressSettings
from actors.ingress.stream import Backend, Choice, Delta, drive, open_choices
from actors.ingress.structured import SchemaGate
from actors.ingress.tally import RequestTally, RequestWatch
from actors.ingress.text import TextCodec
from actors.ingress.traces import RequestTrace
from actors.messages import Timed
from infra.exposition import CONTENT_TYPE
from infra.tracing import Tracer

# A longer body is parsed and tokenised off the event loop.
_INLINE_BODY_BYTES = 16 << 10

Admit = Callable[[Body, TextCodec, IngressSettings, str], Admitted]


class Ingress:
    """The endpoints of one served model."""

    def __init__(
        self,
        settings: IngressSettings,
        codec: TextCodec,
        backend: Backend,
        schemas: SchemaGate,
        tally: RequestTally,
        tracer: Tracer | None = None,
    ) -> None:
        self._tally = tally
        self._settings = settings
        self._tracer = tracer
        self._codec = codec
        self._backend = backend
        self._schemas = schemas
        self._started_at = int(time.time())

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        return await self._generate(request, ChatBody, admit_chat, ChatWire)

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        return await self._generate(request, CompletionBody, admit_completion, CompletionWire)

    async def models(self) -> Response:
        """GET /v1/models."""
        served = [self._model(name) for name in self._settings.served_names]
        return _json({"object": "list", "data": served})

    async def model(self, model_id: str) -> Response:
        """GET /v1/models/{id}."""
        if model_id not in self._settings.served_names:
            raise model_not_found(model_id, self._settings)
        return _json(self._model(model_id))

    async def health(self) -> Response:
        """GET /health."""
        return _json(await self._backend.health())

    async def ready(self) -> Response:
        """GET /ready: 200 or 503, with the reasons."""
        is_ready, facts = await self._backend.ready()
        return _json(facts, 200 if is_ready else 503)

    async def version(self) -> Response:
        """GET /version."""
        return _json(await self._backend.version())

    async def metrics(self) -> Response:
        """GET /metrics."""
        return Response(await self._backend.metrics(), media_type=CONTENT_TYPE)

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._started_at,
            "owned_by": self._settings.owned_by,
        }

    async def _generate(
        self, request: Request, kind: type[Body], admit: Admit[Body], wire_kind: type[Wire]
    ) -> Response:
        trace = RequestTrace(self._tracer, request, wire_kind)
        try:
            return await self._answer(request, kind, admit, wire_kind, trace)
        except BaseException as exc:
            trace.failed(exc)
            raise

    async def _answer(
        self,
        request: Request,
        kind: type[Body],
        admit: Admit[Body],
        wire_kind: type[Wire],
        trace: RequestTrace,
    ) -> Response:
        request_id: str = request.state.request_id
        began_s = self._tally.clock()
        raw = await read_body(request, self._settings.max_body_bytes)

        def admitted_body() -> Admitted:
            return admit(parse(raw, kind), self._codec, self._settings, request_id)

        if len(raw) > _INLINE_BODY_BYTES:
            admitted = await asyncio.to_thread(admitted_body)
        else:
            admitted = admitted_body()
        if grammar := admitted.generate.sessions[0].sampling.params.grammar:
            await self._schemas.check(grammar)
        identity = Identity(
            request_id,
            int(time.time()),
            self._settings.model_name,
            self._settings.system_fingerprint,
        )
        wire = wire_kind(
            identity,
            self._codec,
            include_usage=admitted.include_usage,
            provenance=admitted.provenance,
            token_ids=admitted.token_ids,
            timeline=admitted.timeline,
            logprobs=admitted.logprobs,
        )
        trace.admitted(admitted, wire)
        if admitted.timeline or trace.carrier:
            timed = Timed(trace.came_s, admitted.timeline, trace.carrier)
            admitted = replace(admitted, generate=replace(admitted.generate, timed=timed))
        choices = open_choices(admitted, self._codec)
        counts = len(choices), admitted.num_prompt_tokens
        watch = RequestWatch(self._tally, choices[0].mode, began_s, *counts)
        if admitted.stream:
            events = self._events(admitted, choices, wire, request_id, trace, watch)
            return await _begin(events, request)
        async with while_connected(request.receive):
            await self._run(admitted, choices, watch)
        trace.answered(choices)
        whole = wire.whole(admitted.num_prompt_tokens, choices)
        return Response(whole, media_type="application/json")

    async def _run(self, admitted: Admitted, choices: list[Choice], watch: RequestWatch) -> None:
        async with aclosing(self._deltas(admitted, choices, watch)) as deltas:
            async for _ in deltas:
                pass

    async def _deltas(
        self, admitted: Admitted, choices: list[Choice], watch: RequestWatch
    ) -> AsyncGenerator[tuple[Choice, Delta], None]:
        """What each commit adds; it is counted on the way."""
        try:
            async with aclosing(drive(self._backend, admitted.generate, choices)) as deltas:
                async for choice, delta in deltas:
                    watch.saw(choice.index, len(delta.tokens), delta.finish)
                    yield choice, delta
        except Exception as exc:
            known = as_api_error(exc)
            watch.failed(known.status if known else 500)
            raise
        finally:
            watch.left()

    async def _events(
        self,
        admitted: Admitted,
        choices: list[Choice],
        wire: Wire,
        request_id: str,
        trace: RequestTrace,
        watch: RequestWatch,
    ) -> AsyncGenerator[bytes, None]:
        """The events of a stream. A failure before the first one is raised, later it is sent."""
        unsent: dict[int, Delta] = {}
        opened: set[int] = set()
        try:
            async with aclosing(self._deltas(admitted, choices, watch)) as deltas:
                async for choice, delta in deltas:
                    frame = b""
                    if choice.index not in opened:
                        frame = wire.opening(choice)
                    whole = delta.after(unsent.pop(choice.index, None))
                    if whole.text or whole.finish:
                        frame += wire.chunk(choice, whole)
                    else:
                        unsent[choice.index] = whole
                    if frame:
                        opened.add(choice.index)
                        trace.told()
                        yield frame
            trace.answered(choices)
            if admitted.include_usage:
                yield wire.usage_chunk(admitted.num_prompt_tokens, choices)
            yield DONE
        except Exception as exc:
            trace.failed(exc, choices)
            if not opened:
                raise
            yield sse(explain(exc, request_id).body())
        finally:
            trace.left(choices)


async def _begin(events: AsyncGenerator[bytes, None], request: Request) -> EventStream:
    """Wait for the first event, so that a refusal is still a status, then stream the rest."""
    try:
        async with while_connected(request.receive):
            first = await anext(events)
    except BaseException:
        await events.aclose()
        raise
    return EventStream(first, events)


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")


async def _http_error(request: Request, exc: Exception) -> Response:
    """Starlette's own 404 and 405 in OpenAI's shape."""
    assert isinstance(exc, HTTPException)
    route = f"{request.method} {request.url.path[:128]}"
    error = ApiError(
        exc.status_code,
        f"{exc.detail}: {route} is not an endpoint of this server.",
        code={404: "not_found", 405: "method_not_allowed"}.get(exc.status_code),
        headers=dict(exc.headers or {}),
    )
    return error_response(error, request.state.request_id)


def create_app(
    settings: IngressSettings,
    tokenizer: TextCodec,
    backend: Backend,
    schemas: SchemaGate | None = None,
    tally: RequestTally | None = None,
    tracer: Tracer | None = None,
) -> FastAPI:
    """The application; see the modules beside this one for its parts."""
    schemas, tally = schemas or SchemaGate(tokenizer), tally or RequestTally()
    ingress = Ingress(settings, tokenizer, backend, schemas, tally, tracer)
    app = FastAPI(
        title="viaserve", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.post("/v1/chat/completions")(ingress.chat)
    app.post("/v1/completions")(ingress.completions)
    app.get("/v1/models")(ingress.models)
    app.get("/v1/models/{model_id:path}")(ingress.model)
    for path, probe in (("/health", ingress.health), ("/ready", ingress.ready)):
        app.api_route(path, methods=["GET", "HEAD"])(probe)
    app.get("/version")(ingress.version)
    pages = page_routes() if settings.playground else []
    app.router.routes.extend(pages)
    app.exception_handler(HTTPException)(_http_error)
    open_paths = OPEN_PATHS.union(page.path for page in pages)
    if settings.metrics != "off":
        app.get("/metrics")(ingress.metrics)
        open_paths |= {"/metrics"} if settings.metrics == "open" else frozenset()
    app.add_middleware(
        Edge,
        api_keys=settings.api_keys,
        echo_request_id=settings.echo_request_id,
        open_paths=open_paths,
    )
    return app
