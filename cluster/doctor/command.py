"""`python -m cluster doctor`: its options; the checks are in `cluster.doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.console.options import (
    CONFIG,
    ApiKeyOption,
    ConfigOption,
    JsonOption,
    LookedAtOption,
    SetOption,
)


def doctor(
    config: ConfigOption = CONFIG,
    set_: SetOption = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster to hold the pools to.")
    ] = None,
    url: LookedAtOption = None,
    api_key: ApiKeyOption = "",
    json_only: JsonOption = False,
) -> None:
    """Check a machine, a cluster or an endpoint, and say what to do; 1 where something failed."""
    from rich.console import Console

    from cluster.config_file import load

    parsed, http = load(config, set_ or [])
    with Console(stderr=True).status("looking"):
        from cluster.doctor.report import has_failed, show, to_json
        from cluster.doctor.visit import Patient, visit

        findings = list(visit(Patient(parsed, http, address, url, api_key)))
    if json_only:
        print(to_json(findings))
    else:
        show(findings)
    raise typer.Exit(int(has_failed(findings)))
