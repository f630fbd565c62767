"""A bench played again in virtual time, from a calibration of the same machine: what it measured
beside what the simulator says.

The same modes take the same turns on the same prompts, so `auto` has learnt from the others'
turns as the served one has. Not in it: HTTP, and other load on the machine.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.advice.bench_check import AUTO, plan_of
from cluster.advice.calibration import Calibration
from cluster.errors import ConfigError
from cluster.simulate.desk import Asked
from cluster.simulate.sources import OFF, of_calibration
from cluster.simulate.stage import Stage
from infra.bench.options import BenchOptions, Prompt
from infra.bench.schedule import Question, Turn, question, turns
from infra.bench.stats import Spread, spread
from policies.advice import KINDS

_MODES = (*map(str, KINDS), AUTO)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one mode at one concurrency, as the bench has them: tokens/s over the time of its turns;
    seconds until the first piece, of a token after it, and between two pieces."""

    tokens_per_s: float
    ttft_s: Spread | None
    token_s: Spread | None
    gap_s: Spread | None


@dataclass(frozen=True, slots=True)
class Met:
    """Both."""

    mode: str
    concurrency: int
    simulated: Figures
    measured: Figures

    def errors(self) -> dict[str, float | None]:
        """Of the simulation, as fractions; of spreads those of their medians."""
        ours, theirs = self.simulated, self.measured
        found: dict[str, float | None] = {
            "tokens_per_s": ours.tokens_per_s / theirs.tokens_per_s - 1
        }
        for name in ("ttft_s", "token_s", "gap_s"):
            one, other = getattr(ours, name), getattr(theirs, name)
            found[name] = one.p50 / other.p50 - 1 if one and other and other.p50 else None
        return found


def meet(found: Calibration, bench: Mapping[str, Any], seed: int = 0) -> tuple[Met, ...]:
    """Every exact mode that the bench measured. ConfigError where it cannot be simulated."""
    given = bench["options"]
    if given["random_plan"]:
        raise ConfigError("--bench: with a random plan there is nothing to compare with")
    rows = [row for row in bench["modes"] if row["mode"] in _MODES and row["tokens"]]
    if not rows:
        raise ConfigError("--bench: no exact mode was measured")
    played = _Played(found, given, rows, seed)
    played.run()
    return tuple(
        Met(row["mode"], row["concurrency"], played.figures(row), _measured(row)) for row in rows
    )


def _measured(row: Mapping[str, Any]) -> Figures:
    spreads = (row.get(name) for name in ("ttft_s", "token_s", "gap_s"))
    return Figures(row["tokens_per_s"], *(Spread(**each) if each else None for each in spreads))


class _Played:
    """The run: turn by turn, at most `concurrency` questions of a turn at a time."""

    def __init__(
        self,
        found: Calibration,
        given: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        seed: int,
    ) -> None:
        self._found, self._given, self._rows = found, given, rows
        self._stage = Stage(of_calibration(found), random.Random(seed), self._done)
        self._turns = self._all_turns()
        self._left: list[Question] = []
        self._running: dict[str, Question] = {}
        self._turn: Turn | None = None
        self._began_s = 0.0
        self._asked = 0
        self._over = False
        self._walls_s: defaultdict[tuple[str, int], float] = defaultdict(float)
        self._answers: defaultdict[tuple[str, int], list[tuple[Asked, float]]] = defaultdict(list)

    def run(self) -> None:
        """All of it."""
        self._next_turn()
        self._stage.keeper.tick()
        self._stage.clock.run(lambda: not self._over)

    def figures(self, row: Mapping[str, Any]) -> Figures:
        """What came of a mode at its concurrency."""
        key = row["mode"], row["concurrency"]
        answers = self._answers[key]
        tokens = sum(asked.session.spec.max_tokens for asked, _ in answers)
        return Figures(
            tokens / self._walls_s[key],
            spread(asked.first_s - asked.arrived_s for asked, _ in answers if asked.first_s),
            spread(
                (end_s - asked.first_s) / (asked.session.spec.max_tokens - 1)
                for asked, end_s in answers
                if asked.first_s and asked.session.spec.max_tokens > 1
            ),
            spread(gap for asked, _ in answers for gap in asked.gaps_s),
        )

    def _all_turns(self) -> Iterator[Turn]:
        """As the bench's own; the turns to warm up have concurrency 0."""
        given, rounds = self._given, self._given.get("rounds", 1)
        levels = dict.fromkeys(row["concurrency"] for row in self._rows)
        modes = dict.fromkeys(row["mode"] for row in self._rows)
        options = BenchOptions(
            Path(),
            modes=tuple(modes),
            concurrency=tuple(levels),
            rounds=rounds,
            waves=given.get("waves", 1),
            warmup=given.get("warmup", 1),
        )
        count = max(row["requests"] for row in self._rows) // rounds
        prompts = [Prompt(str(number), "", "") for number in range(max(count, 1))]
        for mode in modes:
            for prompt in prompts[: options.warmup]:
                yield Turn(mode, 0, (question(options, mode, prompt, 1, 0),))
        for level in levels:
            here = [row["mode"] for row in self._rows if row["concurrency"] == level]
            yield from turns(options, prompts, here, level)

    def _next_turn(self) -> None:
        now = self._stage.clock.now
        if self._turn is not None:
            self._walls_s[self._turn.mode, self._turn.concurrency] += now - self._began_s
        self._turn = next(self._turns, None)
        self._began_s = now
        if self._turn is None:
            self._over = True
            return
        self._left = list(self._turn.questions)
        for _ in range(min(max(self._turn.concurrency, 1), len(self._left))):
            self._ask(self._left.pop(0))

    def _ask(self, asked: Question) -> None:
        name, self._asked = str(self._asked), self._asked + 1
        self._running[name] = asked
        number = int(asked.prompt.id)
        answers = self._found.answers
        known = answers[number % len(answers)]
        self._stage.ask(name, number, known.prompt_tokens, self._length(number), self._plan(asked))

    def _length(self, number: int) -> int:
        """Of the answer to a prompt: the measured one, or as much of it as was asked for. One that
        the calibration's own limit cut short would have gone on."""
        known = self._found.answers[number % len(self._found.answers)].length
        most = self._given.get("max_tokens") or known
        return most if known >= self._found.settings.max_tokens else min(known, most)

    def _plan(self, asked: Question) -> Any:
        if asked.mode == AUTO:
            return None
        if asked.mode == OFF.kind:
            return OFF
        return plan_of(self._found, asked.mode, asked.concurrency, self._given)

    def _done(self, asked: Asked) -> None:
        assert self._turn is not None
        del self._running[asked.session.session_id]
        if self._turn.concurrency:
            key = self._turn.mode, self._turn.concurrency
            self._answers[key].append((asked, self._stage.clock.now))
        if self._left:
            self._ask(self._left.pop(0))
        elif not self._running:
            self._next_turn()


def render(met: tuple[Met, ...]) -> str:
    """A table for people."""
    heads = ("tokens/s", "TTFT ms", "ms/token", "gap ms")
    titles = "".join(f" | {head + ': simulated, measured, error':>33}" for head in heads)
    lines = [f"{'mode':10} {'streams':>7}{titles}"]
    for each in met:
        errors = each.errors()
        cells = [_cell(each.simulated.tokens_per_s, each.measured.tokens_per_s, 1.0)]
        for name in ("ttft_s", "token_s", "gap_s"):
            one, other = getattr(each.simulated, name), getattr(each.measured, name)
            cells.append(_cell(one and one.p50, other and other.p50, 1e3))
        told = zip(cells, errors.values(), strict=True)
        text = "".join(f" | {cell:>24} {_error(error):>8}" for cell, error in told)
        lines.append(f"{each.mode:10} {each.concurrency:7}{text}")
    return "\n".join([*lines, "tokens/s of whole answers; the others are medians"])


def _cell(simulated: float | None, measured: float | None, unit: float) -> str:
    return ", ".join("-" if v is None else f"{v * unit:,.1f}" for v in (simulated, measured))


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:+.0%}"
