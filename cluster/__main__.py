"""The command line: `python -m cluster …`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cluster import __version__
from cluster.advice.advise_command import advise
from cluster.advice.calibrate_command import calibrate
from cluster.config import DEFAULT_CONFIG, ConfigError, load
from cluster.quality.command import quality
from cluster.simulate.command import simulate
from cluster.trio.commands import corpus, distill, heal
from cluster.trio.routes.command import route

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
cli.command()(quality)
cli.command()(corpus)
cli.command()(distill)
cli.command()(heal)
cli.command()(route)
cli.command()(calibrate)
cli.command()(advise)
cli.command()(simulate)


@cli.command()
def fetch() -> None:
    """Make the embedded default model in the cache folder, once; print where it is."""
    from cluster.fetch import fetch_default

    print(fetch_default(progress=lambda line: typer.echo(line, err=True)))


@cli.command()
def serve(
    config: Annotated[Path, typer.Option(help="The YAML config.")] = DEFAULT_CONFIG,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key.path=value, over the file; repeatable.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; default: an own one here.")
    ] = None,
) -> None:
    """Serve in the foreground until Ctrl-C or SIGTERM."""
    parsed, http = load(config, set_ or [])  # before the slow imports: a fault is told at once
    from cluster.serving import run

    run(parsed, http, address)


@cli.command()
def bench(
    prompts: Annotated[Path, typer.Option(help="JSON lines with `turns`; the first is sent.")],
    url: Annotated[str, typer.Option(help="The endpoint.")] = "http://127.0.0.1:8000",
    model: Annotated[str, typer.Option(help="Default: the first that the server has.")] = "",
    modes: Annotated[str, typer.Option(help="Comma-separated; the first is compared with.")] = (
        "off,two_tier,three_tier"
    ),
    concurrency: Annotated[str, typer.Option(help="Comma-separated.")] = "1",
    max_tokens: Annotated[int, typer.Option(help="Of each answer.")] = 128,
    temperature: Annotated[float, typer.Option()] = 0.0,
    seed: Annotated[int, typer.Option()] = 0,
    gamma: Annotated[int | None, typer.Option(help="Draft length.")] = None,
    block: Annotated[int | None, typer.Option(help="Block length.")] = None,
    random_plan: Annotated[bool, typer.Option(help="Draw gamma and block a request.")] = False,
    limit: Annotated[int | None, typer.Option(help="So many of the prompts.")] = None,
    rounds: Annotated[int, typer.Option(help="Times through the prompts.")] = 1,
    waves: Annotated[int, typer.Option(help="Prompts of a mode's turn, over concurrency.")] = 1,
    warmup: Annotated[int, typer.Option(help="Uncounted requests of each mode.")] = 1,
    timeout_s: Annotated[float, typer.Option(help="Of one request.")] = 600.0,
    api_key: Annotated[str, typer.Option(envvar="VIASERVE_API_KEY")] = "",
    ignore_eos: Annotated[bool, typer.Option(help="Always max-tokens long.")] = False,
    require_identical: Annotated[bool, typer.Option(help="Modes that differ are a failure.")] = (
        False
    ),
    baseline_generate: Annotated[
        Path | None, typer.Option(help="A model folder: transformers.generate in turn.")
    ] = None,
    baseline_dtype: Annotated[str, typer.Option()] = "bfloat16",
    threads: Annotated[int | None, typer.Option(help="Of the baseline.")] = None,
) -> None:
    """Measure a running endpoint: modes interleaved in one run; a table, then one JSON line."""
    import asyncio

    from infra.bench import BenchOptions, render, run_bench

    options = BenchOptions(
        prompts=prompts,
        url=url,
        model=model,
        modes=tuple(modes.split(",")),
        concurrency=_numbers(concurrency),
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
    report = asyncio.run(run_bench(options))
    print(render(report))
    print(report.to_json())
    raise SystemExit(report.failed)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--concurrency {text}: give numbers like 1,8") from None


@cli.command()
def hop(count: Annotated[int, typer.Option(min=10, help="Calls to time.")] = 2000) -> None:
    """Time an empty step from a router to a worker and back, on a Ray of its own."""
    from cluster.hop import measure, render

    print(render(measure(count)))


@cli.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """Run the command line; the user's and the files' faults are one line, not a trace."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        cli()
    except _user_errors() as error:
        typer.echo(f"viaserve: {error}", err=True)
        raise SystemExit(2) from None


def _user_errors() -> tuple[type[Exception], ...]:
    """What is the user's or the files' fault; imported only once something failed."""
    from actors.engine.route import ModelError
    from cluster.fetch import FetchError
    from infra.bench import BenchError

    return ConfigError, ModelError, FetchError, BenchError


if __name__ == "__main__":
    main()
