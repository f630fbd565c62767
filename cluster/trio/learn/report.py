"""What a training job shows while it runs and writes when it is done."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from actors.engine.route import Route
from cluster.trio.learn.train import Schedule
from cluster.trio.likeness import Likeness
from cluster.trio.lines import Lines


class Watch:
    """A progress bar of a training job, or lines where there is no terminal."""

    def __init__(self, total: int) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("tokens"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._total = total
        self._task = self._bar.add_task("", total=total, loss=float("nan"))
        self._loss = float("nan")
        self._lines = Lines(self._console)

    def __enter__(self) -> Watch:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def step(self, tokens: int, loss: float) -> None:
        """`tokens` read so far; the loss is shown smoothed."""
        first = self._loss != self._loss
        self._loss = loss if first else 0.95 * self._loss + 0.05 * loss
        self._bar.update(self._task, completed=tokens, loss=self._loss)
        self._lines.tell(f"{tokens:,} of {self._total:,} tokens, loss {self._loss:.3f}")

    def before(self, found: Likeness) -> None:
        """On held-out text, untrained."""
        self._console.print(f"before: {_said(found)}")

    def after(self, found: Likeness) -> None:
        """The same, trained."""
        self._console.print(f"after:  {_said(found)}")


def _said(found: Likeness) -> str:
    return (
        f"agreement {found.agreement:.3f}, coupling {found.coupling:.3f}, overlap"
        f" {found.overlap:.3f}, KL {found.kl:.3f} on {found.rows:,} held-out tokens"
    )


def figures_of(before: Likeness, after: Likeness, schedule: Schedule) -> dict[str, float]:
    """What a trained route's file says of it."""
    return {
        "agreement_untrained": before.agreement,
        "agreement": after.agreement,
        "coupling_untrained": before.coupling,
        "coupling": after.coupling,
        "overlap": after.overlap,
        "kl": after.kl,
        "held_out_rows": after.rows,
        "trained_tokens": schedule.tokens,
        "seed": schedule.seed,
    }


def write_route(route: Route, path: Path) -> None:
    """The file appears whole or not at all, last of all that belongs to it."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(route.model_dump_json(indent=2, exclude_none=True) + "\n")
    os.replace(part, path)
