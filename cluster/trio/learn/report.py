"""What a training job shows while it runs and writes when it is done."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from actors.engine.route import Route
from cluster.console.progress import Bars
from cluster.trio.learn.train import Schedule
from cluster.trio.likeness import Likeness
from cluster.trio.tensors import written_whole


class Watch:
    """A progress bar of a training job, or lines where there is no terminal."""

    def __init__(self, total: int) -> None:
        self._bars = Bars()
        self._bar = self._bars.bar("tokens", total)
        self._loss = float("nan")

    def __enter__(self) -> Watch:
        self._bars.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.__exit__(kind, error, trace)

    def step(self, tokens: int, loss: float) -> None:
        """`tokens` read so far; the loss is shown smoothed."""
        first = self._loss != self._loss
        self._loss = loss if first else 0.95 * self._loss + 0.05 * loss
        self._bar.to(tokens, f"loss {self._loss:.3f}")

    def before(self, found: Likeness) -> None:
        """On held-out text, untrained."""
        self._bars.say(f"before: {_said(found)}")

    def after(self, found: Likeness) -> None:
        """The same, trained."""
        self._bars.say(f"after:  {_said(found)}")


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
    with written_whole(path) as part:
        part.write_text(route.model_dump_json(indent=2, exclude_none=True) + "\n")
