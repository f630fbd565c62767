"""`python -m cluster advise`: its options; the work is in `policies.advice`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.console.options import (
    JsonOption,
    OutOption,
    PlotOption,
    check_file,
    check_plot,
    give,
    numbers,
)
from cluster.errors import ConfigError

if TYPE_CHECKING:
    from cluster.advice.calibration import Calibration
    from cluster.advice.fleet import FleetSource
    from policies.advice import Bounds, Prices

    Source = Calibration | FleetSource


def advise(
    calibration: Annotated[
        Path | None, typer.Argument(help="What `calibrate` wrote; or give --fleet.")
    ] = None,
    fleet: Annotated[Path | None, typer.Option(help="A fleet description, YAML.")] = None,
    loads: Annotated[str, typer.Option(help="Concurrent sessions, comma-separated.")] = (
        "1,2,4,8,16,32"
    ),
    price_cheap: Annotated[
        float | None, typer.Option(min=0.0, help="Of one cheap worker's hour.")
    ] = None,
    price_large: Annotated[
        float | None, typer.Option(min=0.0, help="Of one large worker's hour.")
    ] = None,
    max_gamma: Annotated[int | None, typer.Option(min=1, help="Of the search.")] = None,
    max_block: Annotated[int | None, typer.Option(min=2, help="Of the search.")] = None,
    bench: Annotated[
        Path | None, typer.Option(help="What `bench` printed: predictions are held to it.")
    ] = None,
    plot: PlotOption = None,
    out: OutOption = None,
    json_only: JsonOption = False,
) -> None:
    """Which plan wins at which load, what slim must be like to pay, and what tokens cost."""
    if (calibration is None) == (fleet is None):
        raise ConfigError("advise: give either a calibration or --fleet")
    if bench is not None and calibration is None:
        raise ConfigError("--bench: needs a calibration; a fleet's times are not measured")
    check_plot(plot)
    check_file("--out", out)
    asked = tuple(sorted(numbers("--loads", loads)))
    from cluster.advice.advise_report import MEASURED, ROOFLINE, Report, render
    from policies.advice import advise as decide

    found = _calibration(calibration) if calibration is not None else None
    source = found or _fleet(fleet)
    bounds = _bounds(source, max_gamma, max_block)
    prices = _prices(source, price_cheap, price_large)
    advice = decide(source.model_at, asked, bounds, prices)
    basis = MEASURED if found is not None else ROOFLINE
    checks = ()
    if found is not None and bench is not None:
        from cluster.advice.bench_check import check, read_bench

        checks = check(found, read_bench(bench))
    report = Report((calibration or fleet or Path()).name, basis, advice, checks)
    give(render(report), report.to_json(), json_only=json_only, out=out)
    if plot is not None:
        from cluster.advice.advise_plot import draw

        try:
            draw(advice, source.model_at, bounds, f"{report.source}: {basis}", plot)
        except OSError as error:
            raise ConfigError(f"--plot {plot}: {error.strerror or error}") from error


def _calibration(path: Path) -> Calibration:
    from cluster.advice.calibration import read

    return read(path)


def _fleet(path: Path | None) -> FleetSource:
    from cluster.advice.fleet import load_fleet

    assert path is not None
    return load_fleet(path).source()


def _bounds(source: Source, max_gamma: int | None, max_block: int | None) -> Bounds:
    usual = source.bounds
    return replace(
        usual, max_gamma=max_gamma or usual.max_gamma, max_block=max_block or usual.max_block
    )


def _prices(source: Source, cheap: float | None, large: float | None) -> Prices:
    usual = source.prices
    return replace(
        usual,
        cheap_per_hour=usual.cheap_per_hour if cheap is None else cheap,
        large_per_hour=usual.large_per_hour if large is None else large,
    )
