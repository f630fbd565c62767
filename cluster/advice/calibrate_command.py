"""`python -m cluster calibrate`: its options; the job is imported when it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.console.options import (
    CONFIG,
    ConfigOption,
    JsonOption,
    LimitOption,
    PromptsOption,
    SeedOption,
    SetOption,
    check_file,
    give,
    numbers,
)
from cluster.errors import ConfigError

if TYPE_CHECKING:
    from cluster.config import Config

_RAY_NICENESS = 15
"""What Ray gives a worker process."""


def calibrate(
    prompts: PromptsOption,
    config: ConfigOption = CONFIG,
    set_: SetOption = None,
    out: Annotated[Path, typer.Option(help="Write the calibration there.")] = Path(
        "calibration.json"
    ),
    limit: LimitOption = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Of each answer.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of each answer; 0: greedy.")] = 0.0,
    seed: SeedOption = 0,
    sessions: Annotated[str, typer.Option(help="That share a step, comma-separated.")] = "1,2,4,8",
    context_tokens: Annotated[int, typer.Option(min=32, help="Of each timed session.")] = 256,
    repeats: Annotated[int, typer.Option(min=1, help="Of each step, interleaved.")] = 7,
    hop_ms: Annotated[
        float | None, typer.Option(min=0.0, help="A call's way there and back; default: measured.")
    ] = None,
    json_only: JsonOption = False,
) -> None:
    """Measure a config's trio on this machine: agreement, step times, the hop."""
    from cluster.config_file import load

    parsed, _ = load(config, set_ or [])
    check_file("--out", out)
    shared = tuple(sorted(numbers("--sessions", sessions)))
    _become_like_a_worker(parsed)
    from cluster.advice.calibrate import CalibrateJob
    from cluster.advice.calibrate import calibrate as run
    from cluster.advice.calibration import to_json, write
    from cluster.advice.calibration_report import render
    from cluster.preflight import check
    from infra.bench.options import load_prompts

    job = CalibrateJob(
        facts=check(parsed),
        prompts=load_prompts(prompts, limit),
        prompts_file=prompts,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        sessions=shared,
        context_tokens=context_tokens,
        repeats=repeats,
        hop_s=None if hop_ms is None else hop_ms / 1000,
    )
    found = run(job)
    try:
        write(found, out)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}") from error
    give(render(found), to_json(found), json_only=json_only)


def _become_like_a_worker(config: Config) -> None:
    """Compute threads wait, and yield to others, as they do in the worker that hosts full: beside
    an idle server its steps then take as long as they do in it. Before torch is imported."""
    from cluster.sizes import added_niceness, waiting_env
    from policies.vocabulary import Tier

    pool = next(pool for pool in config.pools.values() if Tier.FULL in pool.tiers)
    os.environ.update(waiting_env(pool))
    os.nice(_RAY_NICENESS + added_niceness(pool))
