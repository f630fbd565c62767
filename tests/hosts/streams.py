"""Streams from a client beside the hosts: what each has said, when, and how it ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

NUM_TOKENS = 24
PROMPTS = (
    "What is the capital of France?",
    "Repeat this list twice: red, green, blue, red, green, blue.",
    "Translate to English: Guten Morgen, wie geht es dir?",
    "Write one sentence about the sea.",
)
MODES = ("off", "two_tier", "three_tier", "auto")
_TIMEOUT_S = 900.0


@dataclass
class Stream:
    """One streamed answer. `times_s`: of its pieces, by time.monotonic()."""

    request: dict[str, Any]
    pieces: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    finish: str | None = None
    error: dict[str, Any] | None = None
    status: int = 0

    @property
    def answer(self) -> tuple[str, tuple[int, ...], str | None]:
        """All that the model has to do with."""
        return "".join(self.pieces), tuple(self.ids), self.finish

    async def read(self, client: httpx.AsyncClient) -> None:
        """To its end, whatever it is."""
        async with client.stream("POST", "/v1/chat/completions", json=self.request) as reply:
            self.status = reply.status_code
            if reply.status_code != 200:
                self.error = json.loads(await reply.aread())["error"]
                return
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    self._take(json.loads(line[6:]))

    def _take(self, event: dict[str, Any]) -> None:
        self.error = event.get("error", self.error)
        self.ids += event.get("viaserve", {}).get("token_ids") or ()
        for choice in event.get("choices", ()):
            self.pieces.append(choice["delta"].get("content") or "")
            self.times_s.append(time.monotonic())
            self.finish = choice["finish_reason"] or self.finish


def requests() -> list[dict[str, Any]]:
    """Sixteen: each prompt greedy and sampled, each of these in two modes."""
    chosen: list[dict[str, Any]] = []
    for prompt in PROMPTS:
        for temperature in (0.0, 0.8):
            for _ in range(2):
                mode = MODES[len(chosen) % len(MODES)]
                chosen.append(
                    {
                        "model": "smollm2-135m-instruct",
                        "messages": [{"role": "user", "content": prompt}],
                        "max_tokens": NUM_TOKENS,
                        "ignore_eos": True,
                        "seed": 5,
                        "temperature": temperature,
                        "stream": True,
                        "viaserve": {"mode": mode, "gamma": 4, "block": 6, "token_ids": True},
                    }
                )
    return chosen


async def streamed(
    url: str, fault: Callable[[], Awaitable[None]] | None = None
) -> tuple[list[Stream], float]:
    """All the requests at once, to their ends. The fault comes when each of them has begun;
    gives the time of that, too."""
    streams = [Stream(request) for request in requests()]
    struck_s = time.monotonic()
    client = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S)
    # One that fails, the fault too, ends the others.
    async with client, asyncio.TaskGroup() as reading:
        for stream in streams:
            reading.create_task(stream.read(client))
        if fault is not None:
            while not all(s.pieces or s.status not in (0, 200) for s in streams):
                await asyncio.sleep(0.02)
            struck_s = time.monotonic()
            await fault()
    return streams, struck_s


def paused_s(streams: list[Stream], since_s: float) -> list[float]:
    """The longest time, of each stream that went on after `since_s`, without a piece."""
    pauses: list[float] = []
    for stream in streams:
        times = [since_s, *(t for t in stream.times_s if t > since_s)]
        gaps = [b - a for a, b in pairwise(times)]
        pauses += [max(gaps)] if gaps else []
    return sorted(pauses)
