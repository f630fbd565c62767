"""`python -m cluster simulate`: its options; the work is imported when it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cluster.config import ConfigError

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
    requests: Annotated[int | None, typer.Option(min=1, help="Instead of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the file's.")] = None,
    bench: Annotated[
        Path | None, typer.Option(help="What `bench` printed on the calibrated machine.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Fleets at a time; default: as many as cores.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write plots, a PNG, there.")] = None,
    json_only: Annotated[bool, typer.Option("--json", help="Only the JSON line.")] = False,
) -> None:
    """Play a fleet in virtual time with the real policies: speed, latency, use, price."""
    if bench is not None:
        return _meet(fleet, bench, json_only)
    asked = fleets.split(",")
    if unknown := [name for name in asked if name not in FLEETS]:
        raise ConfigError(f"--fleets {unknown[0]}: not one of {', '.join(FLEETS)}")
    if plot is not None and not plot.absolute().parent.is_dir():
        raise ConfigError(f"--plot {plot}: no such folder")
    from cluster.advice.fleet import load_fleet
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
    outcomes = simulate_all({name: setups[name] for name in asked}, jobs)
    report = Report(fleet.name, ROOFLINE, cards(setup), outcomes)
    print(report.to_json() if json_only else render(report))
    if plot is not None:
        from cluster.simulate.plot import draw

        try:
            draw(outcomes, f"{fleet.name}: {cards(setup)} cards; {ROOFLINE}", plot)
        except OSError as error:
            raise ConfigError(f"--plot {plot}: {error.strerror or error}") from error


def _meet(calibration: Path, bench: Path, json_only: bool) -> None:
    """Hold simulations of a calibrated machine to what its bench measured."""
    import dataclasses
    import json

    from cluster.advice.bench_check import read_bench
    from cluster.advice.calibration import read
    from cluster.simulate.bench import meet, render

    met = meet(read(calibration), read_bench(bench))
    if json_only:
        print(json.dumps([dataclasses.asdict(e) | {"error_frac": e.errors()} for e in met]))
    else:
        print(render(met))
