"""What can go wrong at the edge, and OpenAI's body for it. It knows no routes."""

from __future__ import annotations

import math
from typing import Any

INVALID_REQUEST = "invalid_request_error"


class Overloaded(Exception):  # noqa: N818
    """The backend has no room now; try again after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"no room for the next {retry_after_s:.3g} s")
        self.retry_after_s = retry_after_s


class Unavailable(Exception):  # noqa: N818
    """The backend cannot serve; the message is shown to the client."""


class ClientGone(Exception):  # noqa: N818
    """The client closed the connection; nobody reads the answer."""


class ApiError(Exception):
    """An answer other than 200: status, headers and OpenAI's error body."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


def invalid(message: str, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    """400: the request itself is at fault, and `message` says what to change."""
    return ApiError(400, message, param=param, code=code)


def as_api_error(exc: Exception) -> ApiError | None:
    """The answer to a known failure; None for one that is our own fault (see `internal`)."""
    match exc:
        case ApiError():
            return exc
        case Overloaded():
            return ApiError(
                429,
                "The server has no room for this request now; retry after the time in Retry-After.",
                type="rate_limit_error",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(max(1, math.ceil(exc.retry_after_s)))},
            )
        case Unavailable():
            return ApiError(503, str(exc), type="server_error", code="unavailable")
        case _:
            return None


def internal(request_id: str) -> ApiError:
    """500 that tells the client nothing but the id under which the cause was logged."""
    message = f"The server failed on this request; its log has the cause under {request_id}."
    return ApiError(500, message, type="server_error", code="internal_error")
