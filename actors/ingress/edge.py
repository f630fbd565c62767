"""The HTTP edge without a domain: keys, request ids, body limits, disconnects, last resort.

It knows neither models nor tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import string
import uuid
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.ingress.errors import ApiError, ClientGone, as_api_error, internal
from actors.ingress.responses import encode

OPEN_PATHS = frozenset({"/health", "/ready", "/version"})
_ID_CHARS = frozenset(string.ascii_letters + string.digits + string.punctuation + " ")
_MAX_ID_LEN = 128
_log = logging.getLogger("viaserve.ingress")


class Edge:
    """ASGI middleware around everything: X-Request-Id, Authorization, and no bare 500. What
    is under `headers` in the request's state goes out with any response to it."""

    def __init__(
        self,
        app: ASGIApp,
        api_keys: tuple[str, ...],
        echo_request_id: bool = True,
        open_paths: frozenset[str] = OPEN_PATHS,
    ) -> None:
        self._app = app
        self._echo = echo_request_id
        self._open_paths = open_paths
        self._keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; see the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id", b""))
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                told = [*message.get("headers", ()), *scope["state"].get("headers", ())]
                if self._echo:
                    told.append((b"x-request-id", request_id.encode()))
                message = {**message, "headers": told}
            await send(message)

        try:
            self._authorize(scope, headers.get(b"authorization", b""))
            await self._app(scope, receive, send_with_id)
        except ClientGone:
            if not started:
                await Response(status_code=499)(scope, receive, send_with_id)
        except Exception as exc:
            if started:
                raise
            await error_response(exc, request_id)(scope, receive, send_with_id)

    def _authorize(self, scope: Scope, header: bytes) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if not self._keys or path in self._open_paths:
            return
        scheme, _, given = header.partition(b" ")
        # Every key is compared, so that the time taken names none of them.
        matches = [hmac.compare_digest(given.strip(), key) for key in self._keys]
        if scheme.lower() != b"bearer" or not any(matches):
            raise ApiError(
                401,
                "A valid API key is needed: send 'Authorization: Bearer <key>'.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _request_id(header: bytes) -> str:
    given = header.decode("latin-1").strip()
    if 0 < len(given) <= _MAX_ID_LEN and _ID_CHARS.issuperset(given):
        return given
    return uuid.uuid4().hex


def explain(exc: Exception, request_id: str) -> ApiError:
    """The client's view of any failure; one that is our own fault is logged here."""
    known = as_api_error(exc)
    if known is None:
        _log.error("request %s failed", request_id, exc_info=exc)
    return known or internal(request_id)


def error_response(exc: Exception, request_id: str) -> Response:
    """The failure as a whole response."""
    error = explain(exc, request_id)
    body = encode(error.body())
    return Response(body, error.status, error.headers, media_type="application/json")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The request's body. Raises ApiError 413 as soon as it is too long."""
    body = bytearray()
    declared = request.headers.get("content-length", "")
    num_declared = int(declared) if declared.isascii() and declared.isdigit() else 0
    async for part in _parts(request):
        body += part
        if max(len(body), num_declared) > max_bytes:
            message = f"The body is longer than {max_bytes} bytes."
            raise ApiError(413, message, code="request_too_large")
    return bytes(body)


async def _parts(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


@contextlib.asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Run the block while the client is there; else cancel it and raise ClientGone.

    The block stays in the caller's task. Enter only once the request's body has been read.
    """

    async def watch(scope: asyncio.Timeout) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.reschedule(asyncio.get_running_loop().time())

    scope = asyncio.timeout(None)
    try:
        async with scope:
            watcher = asyncio.create_task(watch(scope))
            try:
                yield
            finally:
                watcher.cancel()
                await asyncio.wait([watcher])
    except TimeoutError:
        if scope.expired():
            raise ClientGone from None
        raise


class EventStream(Response):
    """Server-sent events from a generator whose first item is already here.

    Unlike StreamingResponse it always closes the generator, in this task, before it returns.
    """

    media_type = "text/event-stream"

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or stop where the client leaves."""
        async with contextlib.aclosing(self._rest), while_connected(receive):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send(_body(self._first))
            async for piece in self._rest:
                await send(_body(piece))
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _body(piece: bytes) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": True}
