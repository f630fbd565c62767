"""A load step in Serve: both pools grow by their ratio and shrink again, and no answer changes.

The model is a toy, so that the machine bears as many workers as it takes; they are real
processes, and only the CPUs that they ask for are fewer than they use.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine.toys import save_route
from tests.serving.server import serving
from tests.trio.conftest import idle_dir

__all__ = ["idle_dir"]

pytestmark = pytest.mark.slow

NUM_CLIENTS = 32
MODES = ("two_tier", "three_tier", "auto")
POLL_S = 0.25
POLLS = 2_400
LARGEST = 3
SCALE = "up_s: 1, down_s: 8"
SETTINGS = [
    "model.context=512",
    "model.dtype=float32",
    "router.max_running=64",
    # Cheap workers would be as many as may be, did the ratio not bound them.
    f"pools.cheap={{tiers: [draft, slim], slots: 4, num_cpus: 0.1, threads: 1, autoscale:"
    f" {{min: 0, max: {LARGEST + 2}, target: 0.01, {SCALE}}}}}",
    f"pools.large={{tiers: [full], slots: 4, num_cpus: 0.1, threads: 1, autoscale:"
    f" {{min: 1, max: {LARGEST}, {SCALE}}}}}",
    "autoscale.max_ratio=1",
]


class Load:
    """Clients that ask the same again and again; every answer must be the plain one."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.plain: dict[int, str] = {}
        self.answers: Counter[str] = Counter()
        self.stop = asyncio.Event()
        self.peaks: Counter[str] = Counter()

    async def ask(self, number: int, mode: str) -> str:
        request = {
            "model": "toy",
            "prompt": " ".join(f"t{3 + (7 * number + i) % 250}" for i in range(20)),
            "max_tokens": 40,
            "temperature": 0.8,
            "ignore_eos": True,
            "seed": number,
            "viaserve": {"mode": mode},
        }
        reply = await self.client.post("/v1/completions", json=request)
        assert reply.status_code == 200, reply.text
        return reply.json()["choices"][0]["text"]

    async def be_asked(self, number: int) -> None:
        """One client, until `stop`."""
        turn = 0
        while not self.stop.is_set():
            mode = MODES[(number + turn) % len(MODES)]
            assert await self.ask(number, mode) == self.plain[number], mode
            self.answers[mode] += 1
            turn += 1

    async def until(self, holds: Callable[[Counter[str]], bool]) -> None:
        """Wait for it to hold of the number of workers by pool; `peaks` keeps the most."""
        seen: Counter[str] = Counter()
        for _ in range(POLLS):
            status = (await self.client.get("/ready")).json()
            seen = Counter(w["pool"] for w in status["workers"] if not w["draining"])
            self.peaks |= seen
            assert seen["large"], status
            if holds(seen):
                return
            await asyncio.sleep(POLL_S)
        raise AssertionError(seen, self.peaks)


async def test_a_load_step_scales_both_pools_up_and_down_and_loses_no_answer(
    idle_dir: Path, tmp_path: Path
) -> None:
    draft = save_route(tmp_path / "draft.json", idle_dir, 7, [0, 6])
    slim = save_route(tmp_path / "slim.json", idle_dir, 7, [0, 1, 4, 6])
    model = [f"model.path={idle_dir}", "model.name=toy"]
    tiers = [f"draft={{kind: route, path: {draft}}}", f"slim.route={slim}"]
    with serving([*SETTINGS, *model, *tiers], config="config/two-pools.yaml") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=600.0) as client:
            load = Load(client)
            for number in range(NUM_CLIENTS):
                load.plain[number] = await load.ask(number, "off")
            await load.until(lambda seen: seen == {"large": 1})
            assert await load.ask(0, "two_tier") == load.plain[0], "with no cheap worker"

            clients: list[Any] = [asyncio.create_task(load.be_asked(n)) for n in range(NUM_CLIENTS)]
            load.peaks.clear()
            await load.until(lambda seen: load.peaks == {"cheap": LARGEST, "large": LARGEST})
            rest = Load(client)
            rest.plain = load.plain
            clients += [asyncio.create_task(rest.be_asked(0))]
            load.stop.set()
            await load.until(lambda seen: seen["large"] == 1)
            rest.stop.set()
            await asyncio.gather(*clients)
            await load.until(lambda seen: seen == {"large": 1})
            assert await load.ask(1, "three_tier") == load.plain[1]
    assert load.peaks == {"cheap": LARGEST, "large": LARGEST}, "no more than the ratio allows"
    assert set(load.answers) == set(MODES)
    assert sum(load.answers.values()) >= NUM_CLIENTS
