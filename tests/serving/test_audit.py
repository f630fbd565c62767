"""The audit over HTTP: a planted bad slim is found, its gate tightens, and the mode is exact."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from actors.engine.route import fingerprint
from tests.serving.server import serving
from tests.serving.test_endpoint import PROMPTS, answer, body

pytestmark = pytest.mark.slow

MOST_TOKENS = 2_000
# All of the draft's tokens pass or give way to slim's own; none escalates.
WIDE = {"mode": "via", "gamma": 4, "block": 8, "theta_accept": 0.5, "theta_escalate": 0.0}


def planted(path: Path, model_dir: Path, kept: list[int]) -> str:
    route = {"model_fingerprint": fingerprint(model_dir), "num_layers": 30, "kept_layers": kept}
    path.write_text(json.dumps(route))
    return str(path)


async def test_a_bad_slim_is_closed_within_two_thousand_tokens(
    tmp_path: Path, default_model_dir: Path
) -> None:
    slim = planted(tmp_path / "slim.json", default_model_dir, [0, 7, 29])
    draft = planted(tmp_path / "draft.json", default_model_dir, [0, 29])
    settings = [f"slim.route={slim}", f"draft={{kind: route, path: {draft}}}", "model.context=1024"]
    with serving(settings) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=300.0) as client:
            levels, committed, number = [0], 0, 0
            while levels[-1] < 4:
                asked = [
                    body(p, seed=number, max_tokens=40, ignore_eos=True, viaserve=WIDE)
                    for p in PROMPTS
                ]
                told = [t for _, t in await asyncio.gather(*(answer(client, a) for a in asked))]
                levels.append(max(t["audit"]["level"] for t in told))
                committed += sum(sum(t["tokens_by_tier"].values()) for t in told)
                number += 1
                assert committed < MOST_TOKENS, levels
            assert levels == sorted(levels), "it tightens step by step"
            asked = body(PROMPTS[0], seed=1, temperature=0.8)
            plain, _ = await answer(client, asked | {"viaserve": {"mode": "off"}})
            text, told = await answer(client, asked | {"viaserve": WIDE})
    assert (text, told["exact"], told["mode"]) == (plain, True, "via")
