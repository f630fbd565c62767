"""Whether anybody listens at a Ray cluster's address, told in seconds: Ray itself tries on for
minutes. It does not know whether that is a Ray."""

from __future__ import annotations

import socket

START_ADVICE = "is it `ray start --head` there, and its port open? give --address HOST:6379"
JOIN_ADVICE = "the same Ray, Python and RAY_AUTH_TOKEN here as there; `ray status` says more"
_PATIENCE_S = 5.0


def unreachable(address: str) -> str | None:
    """Why nobody listens there; None where somebody does, or Ray is to find it (`auto`)."""
    if address in ("auto", "local"):
        return None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return "no host and port"
    if int(port) > 65535:  # the resolver would take it modulo 65536
        return "no such port"
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def reason(error: Exception) -> str:
    """The first line of what Ray says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
