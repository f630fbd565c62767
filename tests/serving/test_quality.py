"""The quality report over HTTP, with the real model as server and as judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.quality.arms import ArmOptions, arms
from cluster.quality.run import ScoringOptions, run_quality
from infra.bench import BenchOptions
from tests.serving.server import Server
from tests.serving.test_endpoint import PROMPTS


@pytest.mark.slow
async def test_exact_modes_and_a_closed_gate_agree_with_full_in_every_token(
    server: Server, default_model_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"turns": [prompt]}) for prompt in PROMPTS[:2]) + "\n")
    compared = arms(ArmOptions(("off", "two_tier", "three_tier", "via"), sweep=(1.0,)))
    options = BenchOptions(
        prompts=path,
        url=server.url,
        modes=tuple(compared),
        extensions=compared,
        max_tokens=12,
        temperature=0.8,
        seed=3,
        warmup=0,
    )
    report = await run_quality(options, ScoringOptions(default_model_dir))
    assert not report.failed, report.first_error
    assert [arm.mode for arm in report.arms] == ["off", "two_tier", "three_tier", "via 1/0.8"]
    for arm in report.arms:
        assert (arm.agreement, arm.same_text, arm.full_rate) == (1.0, 1.0, 1.0), arm
        assert arm.perplexity == report.arms[0].perplexity
