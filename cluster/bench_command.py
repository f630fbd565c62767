"""`python -m cluster bench`: its options; what they mean is in `infra.bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.console.options import (
    DEFAULT_URL,
    ApiKeyOption,
    BlockOption,
    GammaOption,
    JsonOption,
    LimitOption,
    MaxTokensOption,
    OutOption,
    PromptsOption,
    SeedOption,
    TemperatureOption,
    TimeoutOption,
    UrlOption,
    WarmupOption,
    check_file,
    give,
    names,
    numbers,
)


def bench(
    prompts: PromptsOption,
    url: UrlOption = DEFAULT_URL,
    model: Annotated[str, typer.Option(help="Default: the first that the server has.")] = "",
    modes: Annotated[str, typer.Option(help="Comma-separated; the first is compared with.")] = (
        "off,two_tier,three_tier"
    ),
    concurrency: Annotated[str, typer.Option(help="Comma-separated.")] = "1",
    max_tokens: MaxTokensOption = 128,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    gamma: GammaOption = None,
    block: BlockOption = None,
    random_plan: Annotated[bool, typer.Option(help="Draw gamma and block a request.")] = False,
    limit: LimitOption = None,
    rounds: Annotated[int, typer.Option(help="Times through the prompts.")] = 1,
    waves: Annotated[int, typer.Option(help="Prompts of a mode's turn, over concurrency.")] = 1,
    warmup: WarmupOption = 1,
    timeout_s: TimeoutOption = 600.0,
    api_key: ApiKeyOption = "",
    ignore_eos: Annotated[bool, typer.Option(help="Always max-tokens long.")] = False,
    require_identical: Annotated[bool, typer.Option(help="Modes that differ are a failure.")] = (
        False
    ),
    baseline_generate: Annotated[
        Path | None, typer.Option(help="A model folder: transformers.generate in turn.")
    ] = None,
    baseline_dtype: Annotated[str, typer.Option(help="Of the baseline.")] = "bfloat16",
    threads: Annotated[int | None, typer.Option(min=1, help="Of the baseline.")] = None,
    out: OutOption = None,
    json_only: JsonOption = False,
) -> None:
    """Measure a running endpoint: modes interleaved in one run; a table, then one JSON line."""
    import asyncio

    from cluster.console.progress import Bars
    from infra.bench import BenchOptions, render, run_bench

    check_file("--out", out)
    options = BenchOptions(
        prompts=prompts,
        url=url,
        model=model,
        modes=names(modes),
        concurrency=numbers("--concurrency", concurrency),
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        gamma=gamma,
        block=block,
        random_plan=random_plan,
        limit=limit,
        rounds=rounds,
        waves=waves,
        warmup=warmup,
        timeout_s=timeout_s,
        api_key=api_key,
        ignore_eos=ignore_eos,
        require_identical=require_identical,
        baseline_generate=baseline_generate,
        baseline_dtype=baseline_dtype,
        threads=threads,
    )
    with Bars() as bars:
        report = asyncio.run(run_bench(options, saw=bars.counting("requests")))
    line = report.to_json()
    give(f"{render(report)}\n{line}", line, json_only=json_only, out=out)
    raise typer.Exit(int(report.failed))
