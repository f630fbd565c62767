"""What `serve` says while it starts and serves. Lines where stdout is no terminal: scripts,
services and tests read them; `cluster.console.checklist` draws on a terminal."""

from __future__ import annotations

from enum import StrEnum
from types import TracebackType
from typing import Any, Protocol

from cluster.console.look import Away, Look
from cluster.pools_status import lines_of


class Stage(StrEnum):
    """The stages of a start, in their order."""

    CONFIG = "config"
    MODEL = "model"
    RAY = "Ray"
    APPLICATION = "application"
    WORKERS = "workers"
    ENDPOINT = "endpoint"


class Teller(Protocol):
    """Told of every step; to be entered before the first. Leaving it ends what is live."""

    def __enter__(self) -> Teller: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def begin(self, stage: Stage, note: str = "") -> None:
        """A stage begins; the one before is over."""
        ...

    def saw(self, status: dict[str, Any], missing: list[str]) -> None:
        """A body of /ready while workers load. `missing`: tiers that are waited for."""
        ...

    def ready(self, url: str, after_s: float, loaded: list[str]) -> None:
        """It serves. `loaded`: what is on which worker, line by line."""
        ...

    @property
    def watches(self) -> bool:
        """Whether `looked` is to be called every second or two."""
        ...

    def looked(self, look: Look | Away) -> None:
        """How it is now."""
        ...

    def stopping(self) -> None:
        """The end begins."""
        ...


class PlainTeller:
    """Lines on stdout, each once."""

    watches = False

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __enter__(self) -> PlainTeller:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is live."""

    def begin(self, stage: Stage, note: str = "") -> None:
        """One line for all stages: the first that starts anything."""
        if stage is Stage.RAY:
            self._say("starting")

    def saw(self, status: dict[str, Any], missing: list[str]) -> None:
        """Which workers have no place, and which tiers load."""
        lines = lines_of(status["pools"])
        if missing:
            lines.append(f"waiting for workers to load: {', '.join(missing)}")
        for line in lines:
            if line not in self._told:
                self._say(line)
        self._told |= set(lines)

    def ready(self, url: str, after_s: float, loaded: list[str]) -> None:
        """What was loaded, and where it is served."""
        print("\n".join(["viaserve: " + loaded[0], *loaded[1:]]), flush=True)
        self._say(f"ready at {url} after {after_s:.0f} s")

    def looked(self, look: Look | Away) -> None:
        """Not told: nobody watches."""

    def stopping(self) -> None:
        """The last line."""
        self._say("stopping")

    def _say(self, line: str) -> None:
        print(f"viaserve: {line}", flush=True)
