"""`python -m cluster simulate`: its options; the work is imported when it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cluster.console.options import (
    JsonOption,
    OutOption,
    PlotOption,
    check_file,
    check_plot,
    give,
    names,
)
from cluster.errors import ConfigError

FLEETS = ("auto", "off", "two_tier")


def simulate(
    fleet: Annotated[
        Path,
        typer.Argument(
            help="A fleet file with a `simulate` section; or, with --bench, a calibration."
        ),
    ],
    fleets: Annotated[
        str, typer.Option(help="Comma-separated: auto, off (large alone), two_tier.")
    ] = ",".join(FLEETS),
    requests: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, help="Instead of the file's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the file's.")] = None,
    bench: Annotated[
        Path | None, typer.Option(help="What `bench` printed on the calibrated machine.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Fleets at a time; default: as many as cores.")
    ] = None,
    plot: PlotOption = None,
    out: OutOption = None,
    json_only: JsonOption = False,
) -> None:
    """Play a fleet in virtual time with the real policies: speed, latency, use, price."""
    check_plot(plot)
    check_file("--out", out)
    if bench is not None:
        for option, given in (("--plot", plot), ("--requests", requests), ("--seed", seed)):
            if given is not None:
                raise ConfigError(f"{option}: for fleet files; --bench does not use it")
        return _meet(fleet, bench, json_only, out)
    asked = list(dict.fromkeys(names(fleets)))
    if unknown := [name for name in asked if name not in FLEETS]:
        raise ConfigError(f"--fleets {unknown[0]!r}: not one of {', '.join(FLEETS)}")
    from cluster.advice.fleet import load_fleet
    from cluster.console.progress import Bars
    from cluster.simulate.report import ROOFLINE, Report, cards, render
    from cluster.simulate.run import simulate_all
    from cluster.simulate.sources import of_fleet, plain, two_tier

    described = load_fleet(fleet)
    setup = of_fleet(described)
    if requests is not None:
        setup = replace(setup, traffic=replace(setup.traffic, requests=requests))
    if seed is not None:
        setup = replace(setup, seed=seed)
    source = described.source()
    setups = {"auto": setup, "off": plain(setup), "two_tier": two_tier(setup, source)}
    with Bars() as bars:
        bar = bars.bar("fleets", len(asked))
        outcomes = simulate_all({name: setups[name] for name in asked}, jobs, bar.on)
    report = Report(fleet.name, ROOFLINE, cards(setup), outcomes)
    give(render(report), report.to_json(), json_only=json_only, out=out)
    if plot is not None:
        from cluster.simulate.plot import draw

        try:
            draw(outcomes, f"{fleet.name}: {cards(setup)} cards; {ROOFLINE}", plot)
        except OSError as error:
            raise ConfigError(f"--plot {plot}: {error.strerror or error}") from error


def _meet(calibration: Path, bench: Path, json_only: bool, out: Path | None) -> None:
    """Hold simulations of a calibrated machine to what its bench measured."""
    import dataclasses
    import json

    from cluster.advice.bench_check import read_bench
    from cluster.advice.calibration import read
    from cluster.simulate.bench import meet, render

    met = meet(read(calibration), read_bench(bench))
    line = json.dumps([dataclasses.asdict(e) | {"error_frac": e.errors()} for e in met])
    give(render(met), line, json_only=json_only, out=out)
