"""The lines between the leading rank and its followers, by which packs go out and death is seen.

Plain TCP in a star: a message costs one write a follower, a follower that waits for work sleeps
in the kernel, and a process that dies closes its lines. It knows bytes, not what they mean.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Sequence

_HEADER = struct.Struct("!I")
_HELLO = struct.Struct("!32sII")
"""Token, rank, process id."""
_HELLO_S = 30.0
"""A stranger that says nothing holds the others up for so long at most."""
_DEAD_AFTER_MS = 15_000
"""For hosts that vanish: the kernel itself reports a process that ends."""
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class LinkError(Exception):
    """A line could not be made, or is broken."""


class Hub:
    """The leading rank's end of all lines."""

    def __init__(self, host: str, token: str, timeout_s: float) -> None:
        """Listens on a free port of `host`; `token`, 32 characters, keeps strangers out."""
        self._token = token.encode()
        self._timeout_s = timeout_s
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self._lines: list[socket.socket] = []
        self.pids: tuple[int, ...] = ()

    def meet(self, num_followers: int) -> None:
        """Wait for all followers; LinkError where they do not come in time."""
        self._listener.settimeout(self._timeout_s)
        met: dict[int, tuple[socket.socket, int]] = {}
        with self._listener:
            while len(met) < num_followers:
                try:
                    line, _ = self._listener.accept()
                except TimeoutError as error:
                    raise LinkError(f"{len(met)} of {num_followers} followers came") from error
                hello = self._hello_of(line)
                if hello is None or hello[0] in met:
                    line.close()
                    continue
                _settle(line)
                met[hello[0]] = (line, hello[1])
        self._lines = [met[rank][0] for rank in sorted(met)]
        self.pids = tuple(met[rank][1] for rank in sorted(met))

    def _hello_of(self, line: socket.socket) -> tuple[int, int] | None:
        line.settimeout(min(_HELLO_S, self._timeout_s))
        try:
            token, rank, pid = _HELLO.unpack(_take(line, _HELLO.size))
        except (OSError, LinkError):
            return None
        return (rank, pid) if hmac.compare_digest(token, self._token) else None

    def send(self, message: bytes) -> None:
        """To every follower, without waiting for them to take it. LinkError where one is gone."""
        whole = _HEADER.pack(len(message)) + message
        try:
            for line in self._lines:
                line.sendall(whole)
        except OSError as error:
            raise LinkError(str(error)) from error

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone`, from a thread of its own, as soon as a follower's process ends."""
        _watch(self._lines, gone)

    def close(self) -> None:
        """End all lines."""
        for line in self._lines:
            _close(line)


class Spoke:
    """A follower's end of its line."""

    def __init__(self, host: str, port: int, token: str, rank: int, timeout_s: float) -> None:
        """Calls the hub; LinkError where it does not answer."""
        try:
            self._line = socket.create_connection((host, port), timeout_s)
            self._line.sendall(_HELLO.pack(token.encode(), rank, os.getpid()))
        except OSError as error:
            raise LinkError(f"{host}:{port}: {error}") from error
        _settle(self._line)

    def take(self) -> bytes:
        """The next message, however long it takes. LinkError once the hub is gone."""
        try:
            [size] = _HEADER.unpack(_take(self._line, _HEADER.size))
            return _take(self._line, size)
        except OSError as error:
            raise LinkError(str(error)) from error

    def watch(self, gone: Callable[[], None]) -> None:
        """As of Hub."""
        _watch([self._line], gone)

    def close(self) -> None:
        """End the line."""
        _close(self._line)


def _settle(line: socket.socket) -> None:
    line.settimeout(None)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER_MS)


def _close(line: socket.socket) -> None:
    # A thread of this process may still watch it, which would keep it open.
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()


def _take(line: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = line.recv(size - len(parts))
        if not part:
            raise LinkError("the other end is gone")
        parts += part
    return bytes(parts)


def _watch(lines: Sequence[socket.socket], gone: Callable[[], None]) -> None:
    poll = select.poll()
    for line in lines:
        poll.register(line, _GONE)

    def wait() -> None:
        poll.poll()
        gone()

    threading.Thread(target=wait, name="viaserve-rank-watch", daemon=True).start()
