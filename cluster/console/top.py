"""The live view of a server, one frame of it, or the same as JSON."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from cluster.console.frame import frame
from cluster.console.keys import END, SingleKeys, giving_way, key_within
from cluster.console.look import Away, Look, Watcher
from cluster.console.screenful import Screenful

QUIT = ("q", "Q", END)


def show_json(watcher: Watcher) -> None:
    """One JSON object on stdout. Exit code 1 where nobody answers."""
    try:
        look = watcher.look()
    except Away as away:
        print(json.dumps({"url": watcher.url, "state": "away", "why": str(away)}))
        raise typer.Exit(1) from None
    print(json.dumps({"url": watcher.url, **asdict(look.fleet)}))


def show_once(watcher: Watcher) -> None:
    """One frame. Exit code 1 where nobody answers."""
    try:
        look = watcher.look()
    except Away as away:
        typer.echo(f"viaserve: {away}", err=True)
        raise typer.Exit(1) from None
    console = Console(highlight=False)
    if not console.is_terminal:  # a pipe has no width: no row is to be folded
        console = Console(highlight=False, width=160)
    console.print(frame(look, watcher.url))


def show_live(watcher: Watcher, every_s: float) -> None:
    """Frame after frame, until q or Ctrl-C; a server that is away is asked again and again."""
    console = Console(highlight=False)
    live = Live(console=console, screen=True, auto_refresh=False)
    with SingleKeys() as keys, live:

        def leave() -> None:
            live.stop()
            keys.give_back()

        def come_back() -> None:
            keys.take()
            live.start(refresh=True)

        with giving_way(leave, come_back), contextlib.suppress(KeyboardInterrupt):
            _watch(live, watcher, every_s)


def _watch(live: Live, watcher: Watcher, every_s: float) -> None:
    last: Look | None = None
    while True:
        try:
            last = watcher.look()
            shown = Screenful(last, watcher.url)
        except Away as away:
            shown = _gone(away, last, watcher)
        live.update(shown, refresh=True)
        if key_within(every_s) in QUIT:
            return


def _gone(away: Away, last: Look | None, watcher: Watcher) -> Screenful:
    """That it is away, above what was seen last."""
    line = Text(f"{away}; trying again", style="bold red")
    if last is None:
        return Screenful(None, watcher.url, (line,))
    ago = Text(f"what follows is {time.monotonic() - last.at_s:.0f} s old", style="dim")
    return Screenful(last, watcher.url, (line, ago))
