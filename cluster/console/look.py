"""Looks at a server from outside: /ready again and again, and how fast it is in between."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from cluster.console.fleet import Fleet, fleet_of

_PATIENCE_S = 10.0


class Away(Exception):  # noqa: N818 - says where the server is
    """Nobody answers there, or not as a viaserve does; one line."""


@dataclass(frozen=True, slots=True)
class Look:
    """One answer. `tokens_per_s`: since the look before; None where there was none."""

    fleet: Fleet
    at_s: float
    tokens_per_s: float | None = None


class Watcher:
    """Asks one server. `look` raises Away."""

    def __init__(
        self,
        url: str,
        api_key: str = "",
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(headers=headers, timeout=_PATIENCE_S, transport=transport)
        self._clock = clock
        self._before: tuple[float, int] | None = None

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()

    def look(self) -> Look:
        """Ask once."""
        try:
            fleet = fleet_of(self._ask())
        except (KeyError, TypeError, AttributeError) as error:
            raise Away(f"{self.url}/ready is not a viaserve's: no {error}") from error
        now, rate = self._clock(), None
        if fleet.costs is not None:
            if self._before is not None and now > self._before[0]:
                # Fewer than before: another router answers, or it began anew.
                rate = max(fleet.costs.tokens - self._before[1], 0) / (now - self._before[0])
            self._before = now, fleet.costs.tokens
        return Look(fleet, now, rate)

    def _ask(self) -> Any:
        try:
            answer = self._client.get(f"{self.url}/ready")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise Away(f"no server answers at {self.url}: {reason}") from error
        if answer.status_code in (401, 403):
            raise Away(f"{self.url}/ready asks for a key; give --api-key or VIASERVE_API_KEY")
        try:
            return answer.json()
        except json.JSONDecodeError as error:
            raise Away(f"{self.url}/ready answers {answer.status_code} without JSON") from error
