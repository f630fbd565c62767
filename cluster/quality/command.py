"""`python -m cluster quality`: its options; what they mean is in `cluster.quality`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.console.options import (
    DEFAULT_URL,
    ApiKeyOption,
    BlockOption,
    DeviceOption,
    GammaOption,
    JsonOption,
    LimitOption,
    MaxTokensOption,
    OutOption,
    PlotOption,
    PromptsOption,
    SeedOption,
    TemperatureOption,
    TimeoutOption,
    UrlOption,
    WarmupOption,
    check_file,
    check_plot,
    fractions,
    give,
    names,
)

if TYPE_CHECKING:
    from cluster.quality.report import QualityReport


def quality(
    prompts: PromptsOption,
    url: UrlOption = DEFAULT_URL,
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
    limit: LimitOption = None,
    max_tokens: MaxTokensOption = 128,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    gamma: GammaOption = None,
    block: BlockOption = None,
    concurrency: Annotated[int, typer.Option(help="Requests at a time.")] = 1,
    warmup: WarmupOption = 1,
    timeout_s: TimeoutOption = 600.0,
    api_key: ApiKeyOption = "",
    model: Annotated[
        Path | None, typer.Option(help="The full model's folder; default: the embedded model.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the scoring; default: the server's.")] = "",
    device: DeviceOption = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Of the scoring.")] = 1,
    plot: PlotOption = None,
    out: OutOption = None,
    json_only: JsonOption = False,
) -> None:
    """Compare modes of a running endpoint by quality and cost; a table, then one JSON line."""
    import torch

    from actors.engine.loader import DTYPES
    from cluster.console.progress import Bars
    from cluster.fetch import fetch_default
    from cluster.quality.arms import ArmOptions, arms
    from cluster.quality.report import render
    from cluster.quality.run import ScoringOptions, run_quality
    from infra.bench import BenchError, BenchOptions

    check_plot(plot)
    check_file("--out", out)
    compared = arms(
        ArmOptions(
            modes=names(modes),
            sweep=fractions("--sweep", sweep),
            escalate=escalate,
            gate=gate,
            margin=margin,
            alphas=fractions("--alphas", alphas),
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
    with Bars() as bars:
        saw, scored = bars.counting("requests"), bars.counting("answers scored")
        report = asyncio.run(run_quality(options, scoring, saw=saw, scored=scored))
    line = report.to_json()
    give(f"{render(report)}\n{line}", line, json_only=json_only, out=out)
    if plot:
        _draw(report, plot)
    raise typer.Exit(int(report.failed))


def _draw(report: QualityReport, plot: Path) -> None:
    from cluster.quality.plot import draw
    from infra.bench import BenchError

    try:
        draw(report.arms, plot)
    except OSError as error:
        raise BenchError(f"--plot {plot}: {error.strerror or error}") from error
