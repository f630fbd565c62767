"""What takes minutes: the shipped prompts in every mode, the soak, and other ways to serve."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.serving.server import ROOT, START_TIMEOUT_S, STOP_TIMEOUT_S, free_port, serving
from tests.serving.test_endpoint import PROMPTS, answer, body, until_idle

pytestmark = pytest.mark.slow

SHARED_PROMPTS = ROOT.parent / "shared" / "data" / "prompts.jsonl"
SOAK_S = 180.0
NUM_STREAMS = 16


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """The shared prompts where they are beside the checkout, else this folder's own."""
    if SHARED_PROMPTS.is_file():
        return SHARED_PROMPTS
    path = tmp_path / "prompts.jsonl"
    lines = (json.dumps({"id": i, "category": "own", "turns": [p]}) for i, p in enumerate(PROMPTS))
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_all_modes_give_the_same_bytes_on_all_prompts(
    prompts: Path, dtype: str, temperature: float
) -> None:
    with serving([f"model.dtype={dtype}", "router.replicas=2"]) as server:
        for load in (["--concurrency", "8"], ["--concurrency", "1", "--limit", "8"]):
            command = [sys.executable, "-m", "cluster", "bench", "--prompts", str(prompts)]
            command += ["--url", server.url, "--modes", "off,two_tier,three_tier", *load]
            command += ["--max-tokens", "12", "--temperature", str(temperature)]
            command += ["--random-plan", "--require-identical", "--seed", "11"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


async def test_cut_streams_leave_nothing_behind() -> None:
    loop = asyncio.get_running_loop()
    with serving(["model.context=1024"]) as server:
        end = loop.time() + SOAK_S
        async with httpx.AsyncClient(base_url=server.url, timeout=300.0) as client:
            clients = [_stream_until(client, end, random.Random(i)) for i in range(NUM_STREAMS)]
            counts = await asyncio.gather(*clients)
            assert sum(counts) >= NUM_STREAMS
            status = await until_idle(client)
    assert status["steps_in_flight"] == 0


async def _stream_until(client: httpx.AsyncClient, end: float, rng: random.Random) -> int:
    """Stream one request after another; a third is cut after a random number of lines."""
    loop = asyncio.get_running_loop()
    done = 0
    while loop.time() < end:
        mode = rng.choice(["off", "two_tier", "three_tier"])
        request = body(rng.choice(PROMPTS), stream=True, viaserve={"mode": mode})
        cut = rng.randint(1, 6) if rng.random() < 1 / 3 else None
        async with client.stream("POST", "/v1/chat/completions", json=request) as reply:
            assert reply.status_code == 200
            lines = 0
            async for line in reply.aiter_lines():
                lines += line.startswith("data:")
                if lines == cut:
                    break
            else:
                assert cut is None or lines < cut
        done += 1
    return done


async def test_one_worker_may_host_all_tiers_and_share_their_weights() -> None:
    pools = "{all: {tiers: [full, slim, draft]}}"
    with serving([f"pools={pools}", "model.context=1024"]) as server:
        report = "".join(server.output)
        sizes = re.findall(r"weights ([\d,]+ MB)(?: in all|,)", report)
        in_all, full, _ = sizes
        assert in_all == full  # the slim adds nothing
        async with httpx.AsyncClient(base_url=server.url, timeout=300.0) as client:
            texts = {
                (await answer(client, body(PROMPTS[1], viaserve={"mode": mode})))[0]
                for mode in ("off", "two_tier", "three_tier")
            }
    assert len(texts) == 1


def test_the_default_file_works_with_serves_own_command(tmp_path: Path) -> None:
    port = free_port()
    file: dict[str, Any] = yaml.safe_load((ROOT / "config" / "default.yaml").read_text())
    file["http_options"]["port"] = port
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(file))
    serve = Path(sys.executable).with_name("serve")
    process = subprocess.Popen(
        [str(serve), "run", str(path)],
        cwd=ROOT,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        transport = httpx.HTTPTransport(retries=0)
        with httpx.Client(base_url=url, transport=transport, timeout=300.0) as client:
            _until_ready(client, process)
            reply = client.post("/v1/chat/completions", json=body(PROMPTS[0], temperature=0))
        assert "Paris" in reply.json()["choices"][0]["message"]["content"]
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
        for straggler in psutil.wait_procs(family, timeout=10.0)[1]:
            straggler.kill()


def _until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    polls = int(START_TIMEOUT_S)
    for _ in range(polls):
        assert process.poll() is None
        try:
            if client.get("/ready").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        # The process says nothing that could be waited for.
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("not ready")
