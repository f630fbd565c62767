"""What takes minutes: the shipped prompts in every mode, the soak, and other ways to serve."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.serving.serve_cli import default_file, serve_run
from tests.serving.server import ROOT, serving
from tests.serving.test_endpoint import PROMPTS, answer, body, until_idle

pytestmark = pytest.mark.slow

SHARED_PROMPTS = ROOT.parent / "shared" / "data" / "prompts.jsonl"
DEFAULT = "config/default.yaml"
TWO_POOLS = "config/two-pools.yaml"
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


@pytest.mark.parametrize(
    ("config", "dtype", "temperature"),
    [(DEFAULT, "auto", 0.0), (DEFAULT, "float32", 0.8), (TWO_POOLS, "auto", 0.8)],
)
def test_all_modes_give_the_same_bytes_on_all_prompts(
    prompts: Path, config: str, dtype: str, temperature: float
) -> None:
    settings = [f"model.dtype={dtype}", "router.replicas=2"]
    with serving(settings, config=config) as server:
        for load in (["--concurrency", "8"], ["--concurrency", "1", "--limit", "8"]):
            command = [sys.executable, "-m", "cluster", "bench", "--prompts", str(prompts)]
            command += ["--url", server.url, "--modes", "off,two_tier,three_tier", *load]
            command += ["--max-tokens", "12", "--temperature", str(temperature)]
            command += ["--random-plan", "--require-identical", "--seed", "11"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


async def test_cut_streams_leave_nothing_behind() -> None:
    loop = asyncio.get_running_loop()
    with serving(["model.context=1024"], config=TWO_POOLS) as server:
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
    bare = ["draft={kind: ngram}", "slim.route=config/routes/smollm2-135m-28-layers.json"]
    with serving([f"pools={pools}", "model.context=1024", *bare]) as server:
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
    with serve_run(tmp_path / "serve.yaml", default_file()) as run:
        reply = run.client.post("/v1/chat/completions", json=body(PROMPTS[0], temperature=0))
        assert "Paris" in reply.json()["choices"][0]["message"]["content"]


def test_gate_and_audit_of_a_live_server_change_without_a_restart(tmp_path: Path) -> None:
    file = default_file()
    with serve_run(tmp_path / "serve.yaml", file) as run:
        before = run.client.get("/ready").json()
        live = {"gate": {"theta_accept": 1.0}, "audit": {"epsilon": 0.01}}
        file["applications"][0]["deployments"] = [{"name": "router", "user_config": live}]
        run.deploy(file)
        after = run.until(lambda status: status["audit"]["epsilon"] == 0.01)
        assert [w["pid"] for w in after["workers"]] == [w["pid"] for w in before["workers"]]
        asked = body(PROMPTS[1], viaserve={"mode": "via"})
        told = run.client.post("/v1/chat/completions", json=asked).json()["viaserve"]
        assert (told["exact"], told["unseen"]) == (True, 0), "the gate is closed now"
