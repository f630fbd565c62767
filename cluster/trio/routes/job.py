"""The job of `python -m cluster route`: search a route, then judge it on rows it has not seen."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.engine.loader import load_config
from actors.engine.route import fingerprint
from cluster.console.progress import Bars
from cluster.trio.routes.candidate import Candidate
from cluster.trio.routes.candidates import Candidates, attention_share
from cluster.trio.routes.journal import Entry, Journal
from cluster.trio.routes.judge import Bench
from cluster.trio.routes.judges import Staff, judges
from cluster.trio.routes.ledger import HELD_OUT, Ledger, Scale
from cluster.trio.routes.objective import Assumed, Objective, Steps
from cluster.trio.routes.search import Search, SearchSettings
from cluster.trio.routes.step_times import fields_of, measure_steps, read_steps, steps_of
from cluster.trio.routes.texts import Text
from policies.masks import Space, even_mask, greedy_mask, random_mask, singles


@dataclass(frozen=True, slots=True)
class RouteJob:
    """What is searched, by what, and where it goes. `references`: random masks of the winner's
    size that it is compared with. `calibration`: step times that were measured before."""

    bench: Bench
    text: Text
    out: Path
    search: SearchSettings
    halves: bool
    objective: Objective
    assumed: Assumed
    calibration: Path | None
    references: int
    staff: Staff


@dataclass(frozen=True, slots=True)
class Found:
    """`rivals`: what the winner is compared with, by name; both as judged on held-out rows.
    `searched`: every candidate, as judged in the search."""

    scale: Scale
    best: Entry
    rivals: dict[str, list[Entry]]
    searched: list[Entry]


def search_route(job: RouteJob) -> Found:
    """Search, or go on with a search. Raises ModelError."""
    model_dir = job.bench.model_dir
    space = Space(load_config(model_dir).num_hidden_layers, job.halves)
    candidates = Candidates(space, fingerprint(model_dir), attention_share(model_dir))
    settings = _settings(job, candidates.fingerprint)
    journal = Journal(beside(job.out, ".journal.jsonl"), settings, lambda: fields_of(_steps(job)))
    steps = steps_of(journal.facts, job.search.int8)
    scale = Scale(candidates, steps, job.assumed, job.objective)
    name = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:8]
    answers = beside(job.out, f".answers-{name}.safetensors")
    sets = job.text.read(job.bench, candidates.fingerprint, job.search.seed, answers)
    with judges(job.bench, sets, job.staff) as judge_all, _bar(job, scale) as saw:
        ledger = Ledger(journal, candidates, judge_all, saw)
        search = Search(
            space, job.search, lambda proposed: [scale.value(e) for e in ledger.ask(proposed)]
        )
        found = search.run().candidate
        searched = list(ledger.entries)
        rivals = {
            name: ledger.ask([(name, rival) for rival in those], HELD_OUT)
            for name, those in _rivals(job, space, scale, searched, found).items()
        }
        (best,) = ledger.ask([("best", found)], HELD_OUT)
    return Found(scale, best, rivals, searched)


def beside(out: Path, suffix: str) -> Path:
    """A file that belongs to the route file `out`."""
    return out.with_name(out.stem + suffix)


def _rivals(
    job: RouteJob, space: Space, scale: Scale, searched: list[Entry], best: Candidate
) -> dict[str, list[Candidate]]:
    """Masks of the winner's size with its weights, by how they were made, and its mask with the
    others where that may be. Evenly spaced ones are whole layers."""
    size = best.size
    rng = np.random.default_rng([job.search.seed, size])
    alone = {e.mask: scale.value(e) for e in searched if e.kind == "single"}
    damages = list(alone.values())
    assert len(damages) == len(singles(space))
    masks = {
        "greedy": [greedy_mask(space, size, damages)],
        "random": [random_mask(space, size, rng) for _ in range(job.references)],
    }
    if size % space.per_layer == 0:
        masks["even"] = [even_mask(space, size // space.per_layer + 2)]
    rivals = {name: [replace(best, mask=mask) for mask in of] for name, of in masks.items()}
    if job.search.int8:
        rivals["same mask"] = [replace(best, int8=not best.int8)]
    return rivals


def _steps(job: RouteJob) -> Steps:
    int8 = job.search.int8
    return read_steps(job.calibration, int8) if job.calibration else measure_steps(job.bench, int8)


def _settings(job: RouteJob, model: str) -> dict[str, Any]:
    """What has to be the same for a search to go on; a longer one goes on with a shorter."""
    search = asdict(job.search) | {"layers": list(job.search.layers)}
    del search["candidates"]
    if not job.search.int8:  # a search that is older than int8 goes on
        del search["int8"]
    bench = {"dtype": job.bench.dtype, "temperature": job.bench.temperature}
    text = job.text.settings()
    what = {"model": model, "objective": job.objective, "halves": job.halves}
    return what | bench | search | text | asdict(job.assumed)


@contextmanager
def _bar(job: RouteJob, scale: Scale) -> Iterator[Callable[[Entry], None]]:
    """A progress bar that is told of every entry, and shows the best so far."""
    space, settings = scale.candidates.space, job.search
    layers = range(space.units_of(settings.layers[0]), space.units_of(settings.layers[-1]) + 1)
    steps = settings.candidates + space.num_units + len(layers) + len(settings.layers)
    steps += settings.lookahead * (space.num_units - layers[0]) + job.references + 3
    steps += (len(layers) + 1) * settings.int8
    least, best = math.inf, ""
    with Bars() as bars:
        bar = bars.bar("candidates", steps)

        def saw(entry: Entry) -> None:
            nonlocal least, best
            inside = not entry.held_out and entry.candidate.size in layers
            if inside and (now := scale.value(entry)) < least:
                least = now
                told = f"best {entry.kind}: agreement {entry.likeness.agreement:.3f}"
                best = f"{told}, {job.objective} {now:.4g}"
            bar.on(1, best)

        yield saw
        bar.to(steps, best)
