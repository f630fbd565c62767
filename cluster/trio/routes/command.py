"""`python -m cluster route`: its options; what they mean is in `cluster.trio.routes.job`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cluster.console.options import (
    DTYPE_HELP,
    MODEL_HELP,
    DeviceOption,
    JsonOption,
    SeedOption,
    give,
)
from cluster.errors import ConfigError
from cluster.trio.commands import check_temperature, dtype_for, json_out


def route(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    out: Annotated[Path, typer.Option(help="The route file; the journal lies beside it.")],
    corpus: Annotated[
        Path | None, typer.Option(help="A folder of `cluster corpus`, or give --prompts.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="JSON lines with `turns`; the model answers them first.")
    ] = None,
    layers: Annotated[int, typer.Option(help="Keep so many, the ends included; 0: search.")] = 0,
    min_layers: Annotated[int, typer.Option(help="0: a third of them.")] = 0,
    max_layers: Annotated[int, typer.Option(help="0: all but one.")] = 0,
    halves: Annotated[bool, typer.Option(help="Attention and MLP apart.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Weight-only int8 candidates as well.")
    ] = False,
    objective: Annotated[
        str, typer.Option(help="cost (of a token), kl (the paper's R), agreement.")
    ] = "cost",
    candidates: Annotated[int, typer.Option(min=0, help="After the greedy start.")] = 96,
    theta: Annotated[int, typer.Option(min=1, help="Every theta-th is Bayesian.")] = 4,
    local: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the others that begin at the best.")
    ] = 0.5,
    lookahead: Annotated[int, typer.Option(min=0, help="Layers tried a greedy step.")] = 3,
    rows: Annotated[int, typer.Option(min=1, help="Tokens that the search looks at.")] = 1024,
    held_out_rows: Annotated[int, typer.Option(min=1, help="Tokens of the table.")] = 2048,
    chat_tokens: Annotated[int, typer.Option(min=8, help="Of each chat, at most.")] = 192,
    references: Annotated[int, typer.Option(min=1, help="Random masks to compare with.")] = 8,
    temperature: Annotated[
        float, typer.Option(help="Of the coupling M, and of answers to prompts.")
    ] = 0.8,
    a0: Annotated[
        float, typer.Option(min=0, max=1, help="M(draft, full) that `cost` assumes.")
    ] = 0.6,
    a1: Annotated[
        float, typer.Option(min=0, max=1, help="M(draft, slim) that `cost` assumes.")
    ] = 0.65,
    draft_cost: Annotated[float, typer.Option(min=0, help="A draft's step over full's.")] = 0.1,
    hop_ms: Annotated[float, typer.Option(min=0, help="To the full worker and back.")] = 0.0,
    healing: Annotated[
        float, typer.Option(min=0, max=1, help="Share of 1 - M that healing is to close.")
    ] = 0.0,
    calibration: Annotated[
        Path | None, typer.Option(help="Step times, JSON; default: measured at the start.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="0: one for each --threads cores.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Of each worker.")] = 1,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster.")] = None,
    gpus: Annotated[float, typer.Option(min=0, help="Of each worker.")] = 0.0,
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "auto",
    device: DeviceOption = "cpu",
    seed: SeedOption = 0,
    plot: Annotated[Path | None, typer.Option(help="A PNG; default: beside the route.")] = None,
    json_only: JsonOption = False,
) -> None:
    """Search which layers a slim verifier keeps; a table on held-out rows, then one JSON line."""
    if (corpus is None) == (prompts is None):
        raise ConfigError("--corpus, --prompts: give one of them")
    dtype = dtype_for(dtype, device)
    check_temperature(temperature)
    from actors.engine.loader import load_config
    from cluster.preflight import model_dir_of
    from cluster.trio.routes.job import RouteJob, beside, search_route
    from cluster.trio.routes.judge import Bench
    from cluster.trio.routes.judges import Staff
    from cluster.trio.routes.objective import OBJECTIVES, Assumed
    from cluster.trio.routes.report import draw, render, route_of, to_json, write
    from cluster.trio.routes.search import SearchSettings
    from cluster.trio.routes.texts import Text

    if objective not in OBJECTIVES:
        raise ConfigError(f"--objective {objective}: give one of {', '.join(OBJECTIVES)}")
    if int8 and objective != "cost":
        raise ConfigError(
            f"--int8, --objective {objective}: int8 is only ever cheaper, and that counts in"
            " --objective cost alone"
        )
    model_dir = model_dir_of(model)
    sizes = _sizes(load_config(model_dir).num_hidden_layers, layers, min_layers, max_layers)
    staff = Staff(workers or max(1, (os.cpu_count() or 1) // threads), gpus, address)
    job = RouteJob(
        bench=Bench(model_dir, dtype, device, threads, temperature),
        text=Text(corpus, prompts, rows, held_out_rows, chat_tokens),
        out=json_out(out),
        search=SearchSettings(sizes, candidates, theta, local, lookahead, seed, int8),
        halves=halves,
        objective=objective,
        assumed=Assumed(a0, a1, draft_cost, hop_ms / 1000, healing),
        calibration=calibration,
        references=references,
        staff=staff,
    )
    found = search_route(job)
    best = route_of(found, seed)
    write(best, out)
    draw(found, plot or beside(out, ".png"))
    line = to_json(found, best)
    give(f"{render(found)}\n{line}", line, json_only=json_only)


def _sizes(num_layers: int, layers: int, least: int, most: int) -> range:
    """The allowed sizes; ConfigError where there is none."""
    if num_layers < 3:
        raise ConfigError(f"a model of {num_layers} layers has none to leave out")
    if layers and (least or most):
        raise ConfigError("--layers: give it alone, or --min-layers and --max-layers")
    first = layers or least or max(2, -(-num_layers // 3))
    last = layers or most or num_layers - 1
    if not 2 <= first <= last < num_layers:
        name = "--layers" if layers else "--min-layers, --max-layers"
        raise ConfigError(
            f"{name}: {first} to {last}: give sizes from 2 to {num_layers - 1}, ascending"
        )
    return range(first, last + 1)
