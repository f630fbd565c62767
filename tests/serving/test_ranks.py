"""Full over several ranks in Serve: the bytes of one rank, and a killed rank fails no request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.serving.server import Server, serving
from tests.serving.test_endpoint import answer, body, until_idle
from tests.serving.test_long import prompts

__all__ = ["prompts"]

pytestmark = pytest.mark.slow

NUM_PROMPTS = 16
CONFIG = "config/two-pools.yaml"
# On a busy machine a group may take longer to come back than clients usually wait.
SETTINGS = ["model.dtype=float32", "model.context=2048", "router.worker_wait_s=900"]
MODES = ("off", "two_tier")


@pytest.fixture(scope="module")
def one_rank() -> list[str]:
    """Texts that full in one process gives, by prompt; the first test asks for them."""
    return []


def requests_of(prompts: Path) -> list[dict[str, Any]]:
    lines = prompts.read_text().splitlines()
    turns = [json.loads(line)["turns"][0] for line in lines]
    step = max(1, len(turns) // NUM_PROMPTS)
    chosen = turns[::step][:NUM_PROMPTS]
    return [
        body(turn, temperature=0.0, viaserve={"mode": MODES[i % len(MODES)]})
        for i, turn in enumerate(chosen)
    ]


async def texts(server: Server, requests: list[dict[str, Any]]) -> list[str]:
    async with httpx.AsyncClient(base_url=server.url, timeout=1800.0) as client:
        found = await asyncio.gather(*(answer(client, request) for request in requests))
    return [text for text, _ in found]


async def kill_once_streaming(server: Server, request: dict[str, Any], rank: int) -> str:
    """Stream an answer whole, killing a rank of full in its course."""
    pieces: list[str] = []
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=1800.0) as client,
        client.stream("POST", "/v1/chat/completions", json=request | {"stream": True}) as reply,
    ):
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line[6:])["choices"]:
                pieces.append(choice["delta"].get("content") or "")
            if len(pieces) == 3:
                [full] = [w for w in server.ready()["workers"] if "full" in w["tiers"]]
                psutil.Process(full["rank_pids"][rank]).kill()
    return "".join(pieces)


@pytest.mark.parametrize("size", [2, 3])
async def test_ranks_give_the_bytes_of_one_and_a_killed_rank_fails_no_request(
    prompts: Path, one_rank: list[str], size: int
) -> None:
    requests = requests_of(prompts)
    assert len(requests) > 3
    if not one_rank:
        with serving(SETTINGS, config=CONFIG) as server:
            one_rank += await texts(server, requests)
    with serving([*SETTINGS, f"pools.large.tp={size}"], config=CONFIG) as server:
        assert await texts(server, requests) == one_rank
        [before] = [w for w in server.ready()["workers"] if "full" in w["tiers"]]
        assert len(before["rank_pids"]) == size
        streamed, others = await asyncio.gather(
            kill_once_streaming(server, requests[0], size - 1), texts(server, requests[1:])
        )
        assert [streamed, *others] == one_rank
        async with httpx.AsyncClient(base_url=server.url, timeout=300.0) as client:
            status = await until_idle(client)
        [after] = [w for w in status["workers"] if "full" in w["tiers"]]
        assert not set(after["rank_pids"]) & set(before["rank_pids"])
