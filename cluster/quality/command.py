"""`python -m cluster quality`: its options; what they mean is in `cluster.quality`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.config import ConfigError

if TYPE_CHECKING:
    from cluster.quality.report import QualityReport


def quality(
    prompts: Annotated[Path, typer.Option(help="JSON lines with `turns`; the first is sent.")],
    url: Annotated[str, typer.Option(help="The endpoint.")] = "http://127.0.0.1:8000",
    modes: Annotated[str, typer.Option(help="Comma-separated; the first is compared with.")] = (
        "off,two_tier,three_tier,cascade,via"
    ),
    sweep: Annotated[str, typer.Option(help="Of via: theta_accept values, comma-separated.")] = "",
    escalate: Annotated[
        float | None, typer.Option(help="Of the sweep: theta_escalate; default: accept - 0.2.")
    ] = None,
    gate: Annotated[str, typer.Option(help="Of via: ratio or margin.")] = "",
    margin: Annotated[float | None, typer.Option(help="Of via's gate margin.")] = None,
    alphas: Annotated[str, typer.Option(help="Of cascade, comma-separated.")] = "",
    limit: Annotated[int | None, typer.Option(help="So many of the prompts.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Of each answer.")] = 128,
    temperature: Annotated[float, typer.Option()] = 0.0,
    seed: Annotated[int, typer.Option()] = 0,
    gamma: Annotated[int | None, typer.Option(help="Draft length.")] = None,
    block: Annotated[int | None, typer.Option(help="Block length.")] = None,
    concurrency: Annotated[int, typer.Option(help="Requests at a time.")] = 1,
    warmup: Annotated[int, typer.Option(help="Uncounted requests of each mode.")] = 1,
    timeout_s: Annotated[float, typer.Option(help="Of one request.")] = 600.0,
    api_key: Annotated[str, typer.Option(envvar="VIASERVE_API_KEY")] = "",
    model: Annotated[
        Path | None, typer.Option(help="The full model's folder; default: the embedded model.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the scoring; default: the server's.")] = "",
    device: Annotated[str, typer.Option(help="Of the scoring.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Of the scoring.")] = 1,
    plot: Annotated[Path | None, typer.Option(help="Write a Pareto plot, a PNG, there.")] = None,
    json_only: Annotated[bool, typer.Option("--json", help="Only the JSON line.")] = False,
) -> None:
    """Compare modes of a running endpoint by quality and cost; a table, then one JSON line."""
    import torch

    from actors.engine.loader import DTYPES
    from cluster.fetch import fetch_default
    from cluster.quality.arms import ArmOptions, arms
    from cluster.quality.report import render
    from cluster.quality.run import ScoringOptions, run_quality
    from infra.bench import BenchError, BenchOptions

    if plot and not plot.absolute().parent.is_dir():
        raise BenchError(f"--plot {plot}: no such folder")
    compared = arms(
        ArmOptions(
            modes=tuple(modes.split(",")),
            sweep=_numbers("--sweep", sweep),
            escalate=escalate,
            gate=gate,
            margin=margin,
            alphas=_numbers("--alphas", alphas),
        )
    )
    options = BenchOptions(
        prompts=prompts,
        url=url,
        modes=tuple(compared),
        concurrency=(concurrency,),
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        gamma=gamma,
        block=block,
        limit=limit,
        warmup=warmup,
        timeout_s=timeout_s,
        api_key=api_key,
        extensions=compared,
    )
    if dtype and dtype not in DTYPES:
        raise BenchError(f"--dtype {dtype}: give one of {', '.join(DTYPES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BenchError(f"--device {device}: this machine has no CUDA device")
    scoring = ScoringOptions(model or fetch_default(), dtype, device, threads)
    report = asyncio.run(run_quality(options, scoring))
    if not json_only:
        print(render(report))
    print(report.to_json())
    if plot:
        _draw(report, plot)
    raise SystemExit(report.failed)


def _draw(report: QualityReport, plot: Path) -> None:
    from cluster.quality.plot import draw
    from infra.bench import BenchError

    try:
        draw(report.arms, plot)
    except OSError as error:
        raise BenchError(f"--plot {plot}: {error.strerror or error}") from error


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ConfigError(f"{option} {text}: give numbers like 0.9,0.7") from None
