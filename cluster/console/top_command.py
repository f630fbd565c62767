"""`python -m cluster top`: its options; the work is in `cluster.console.top`."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.console.options import DEFAULT_URL, ApiKeyOption, JsonOption, UrlOption
from cluster.errors import ConfigError


def top(
    url: UrlOption = DEFAULT_URL,
    api_key: ApiKeyOption = "",
    every_s: Annotated[
        float, typer.Option(min=0.1, max=3600.0, help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option(help="One frame, then end.")] = False,
    json_only: JsonOption = False,
) -> None:
    """Watch a server's pools, workers, sessions, acceptance, plan and audit; q ends it."""
    import sys

    from cluster.console.look import Watcher
    from cluster.console.top import show_json, show_live, show_once

    if not (once or json_only or sys.stdout.isatty()):
        raise ConfigError("top: stdout is no terminal; give --once or --json")
    watcher = Watcher(url, api_key)
    try:
        if json_only:
            show_json(watcher)
        elif once:
            show_once(watcher)
        else:
            show_live(watcher, every_s)
    finally:
        watcher.close()
