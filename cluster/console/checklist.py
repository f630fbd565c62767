"""The start-up of `serve` on a terminal: a list that ticks itself off, then one live line."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cluster.console.fleet import Missing, Pool, fleet_of
from cluster.console.frame import headline, pools_line
from cluster.console.look import Away, Look
from cluster.console.start import Stage

DONE, FAILED, AHEAD = ("✓", "green"), ("✗", "red"), ("·", "dim")


class LiveTeller:
    """Draws on a terminal. `clock` in seconds."""

    watches = True

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(highlight=False)
        self._clock = clock
        self._begun_s: dict[Stage, float] = {}
        self._ended_s: dict[Stage, float] = {}
        self._notes: dict[Stage, str] = {}
        self._failed = False
        self._pools: tuple[Pool, ...] = ()
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=self._console, get_renderable=self._list, refresh_per_second=8)

    def __enter__(self) -> LiveTeller:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._failed = self._failed or isinstance(error, Exception)
        self._live.stop()

    def begin(self, stage: Stage, note: str = "") -> None:
        """Tick the one before off."""
        self._tick_off()
        self._begun_s[stage] = self._clock()
        self._notes[stage] = note

    def saw(self, status: dict[str, Any], missing: list[str]) -> None:
        """Show each pool's workers."""
        self._pools = fleet_of(status).pools
        self._notes[Stage.WORKERS] = f"waiting for {', '.join(missing)}" if missing else ""

    def ready(self, url: str, after_s: float, loaded: list[str]) -> None:
        """The list stays as it is; below it what was loaded, then the live line."""
        self._notes[Stage.ENDPOINT] = url
        self._tick_off()
        self._live.stop()
        self._console.print(*loaded, sep="\n", soft_wrap=True)
        self._console.print(f"[bold green]ready[/] at [bold]{url}[/] after {after_s:.0f} s")
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def looked(self, look: Look | Away) -> None:
        """One line, cut where the terminal ends."""
        if isinstance(look, Away):
            line = Text(str(look), style="bold red")
        else:
            line = headline(look).append(f"  {pools_line(look.fleet)}")
        line.no_wrap, line.overflow = True, "ellipsis"
        self._live.update(line, refresh=True)

    def stopping(self) -> None:
        """The live line makes room for the last one."""
        self._failed = Stage.ENDPOINT not in self._ended_s
        self._live.stop()
        self._console.print("stopping")

    def _tick_off(self) -> None:
        now = self._clock()
        for stage in self._begun_s:
            self._ended_s.setdefault(stage, now)

    def _list(self) -> RenderableType:
        rows = Table.grid(padding=(0, 1))
        for stage in Stage:
            rows.add_row(self._mark(stage), str(stage), self._took(stage), self._notes.get(stage))
            if stage is Stage.WORKERS and stage in self._begun_s:
                for pool in self._pools:
                    _add_pool(rows, pool)
        return Group(Text("viaserve", style="bold"), rows)

    def _mark(self, stage: Stage) -> RenderableType:
        if stage in self._ended_s:
            return Text(*DONE)
        if stage not in self._begun_s:
            return Text(*AHEAD)
        return Text(*FAILED) if self._failed else self._spinner

    def _took(self, stage: Stage) -> Text:
        begun_s = self._begun_s.get(stage)
        if begun_s is None:
            return Text()
        return Text(f"{self._ended_s.get(stage, self._clock()) - begun_s:.1f} s", style="dim")


def _add_pool(rows: Table, pool: Pool) -> None:
    whole = pool.running >= pool.wanted
    style = "green" if whole else "yellow"
    here = Text(f"{pool.running} of {pool.wanted} workers ready", style=style)
    rows.add_row("", f"  {pool.name}", "", here)
    for one in pool.missing:
        rows.add_row("", "", "", _missing(one))


def _missing(one: Missing) -> Text:
    if one.placed:
        return Text(f"{one.worker_id}: loading", style="cyan")
    return Text(f"{one.worker_id}: waiting: {one.why}", style="yellow")
