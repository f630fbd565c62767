"""The trio's commands: their options. The jobs are imported when one runs: they load torch."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.console.options import (
    DTYPE_HELP,
    MODEL_HELP,
    DeviceOption,
    JsonOption,
    SeedOption,
    ThreadsOption,
    give,
)
from cluster.errors import ConfigError

if TYPE_CHECKING:
    from cluster.trio.learn.train import Schedule

OPENERS = Path(__file__).parent / "text" / "openers.txt"
"""Beginnings of questions of the kinds that Spec-Bench has: conversation, translation,
summarisation, question answering, maths, text with passages."""

TextOption = Annotated[Path, typer.Option("--corpus", help="What `corpus` wrote.")]
TokensOption = Annotated[int, typer.Option(min=1, help="To read, several times over.")]
RateOption = Annotated[float, typer.Option(help="Peak learning rate.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Chats of a step.")]
LossOption = Annotated[str, typer.Option(help="kl, tv or mixed.")]
ShardsOption = Annotated[int | None, typer.Option(min=1, help="At most so many of the text.")]
TemperatureOption = Annotated[float, typer.Option(help="Of the figures.")]
CheckpointOption = Annotated[float, typer.Option(min=0, help="Seconds between checkpoints.")]


def corpus(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    out: Annotated[Path, typer.Option(help="The folder of the text.")],
    shards: Annotated[int, typer.Option(min=1, help="Shards in all; those there are kept.")] = 8,
    chats: Annotated[int, typer.Option(min=1, help="Chats of a shard, side by side.")] = 224,
    tokens: Annotated[int, typer.Option(min=64, help="Of each chat.")] = 384,
    openers: Annotated[Path, typer.Option(help="Beginnings of questions, one a line.")] = OPENERS,
    seed: SeedOption = 0,
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "auto",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 0,
    json_only: JsonOption = False,
) -> None:
    """Let a model write chats with itself; go on where a run before was ended."""
    from cluster.preflight import model_dir_of
    from cluster.trio.text.lockstep import Recipe
    from cluster.trio.text.write import CorpusJob, write_corpus

    _use(threads, device)
    dtype = dtype_for(dtype, device)
    lines = _lines(openers)
    recipe = Recipe(tokens=tokens)
    write_corpus(
        CorpusJob(model_dir_of(model), out, lines, shards, chats, recipe, seed, dtype, device)
    )
    wrote = {"corpus": str(out), "shards": shards, "chats": chats, "tokens": tokens}
    text = f"{out}: {shards} shards of {chats} chats of {tokens} tokens"
    give(text, json.dumps(wrote), json_only=json_only)


def distill(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    text: TextOption,
    out: Annotated[Path, typer.Option(help="The draft's route file, .json.")],
    layers: Annotated[int, typer.Option(min=1, help="How many of full's: first ones, last.")] = 3,
    kept: Annotated[str, typer.Option(help="Or which: comma-separated.")] = "",
    start: Annotated[
        Path | None, typer.Option(help="Go on from this draft's route instead.")
    ] = None,
    reads: Annotated[
        bool, typer.Option("--reads-full", help="It reads full's hidden states, in full's worker.")
    ] = False,
    shortlist: Annotated[int, typer.Option(min=64, help="Ids of the draft's head.")] = 8192,
    weights: Annotated[str, typer.Option(help="int8, or empty for the model's own.")] = "",
    tokens: TokensOption = 4_000_000,
    rate: RateOption = 1e-3,
    batch: BatchOption = 12,
    loss: LossOption = "mixed",
    shards: ShardsOption = None,
    temperature: TemperatureOption = 0.8,
    checkpoint_s: CheckpointOption = 60.0,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 0,
    json_only: JsonOption = False,
) -> None:
    """Train a draft of a few of full's layers; go on where a run before was ended."""
    from actors.engine.loader import load_config
    from cluster.preflight import model_dir_of
    from cluster.trio.learn.course import Course
    from cluster.trio.learn.distil import DistilJob, default_layers, distil
    from cluster.trio.learn.report import Watch

    check_temperature(temperature)
    _use(threads, device)
    if weights not in ("", "int8"):
        raise ConfigError(f"--weights {weights}: give int8 or leave it out")
    schedule = _schedule(tokens, batch, rate, loss, seed, checkpoint_s)
    model_dir = model_dir_of(model)
    chosen = _layers(kept) or default_layers(load_config(model_dir).num_hidden_layers, layers)
    course = Course(
        model_dir,
        text,
        json_out(out),
        schedule,
        shortlist=shortlist,
        shards=shards,
        temperature=temperature,
        device=device,
    )
    with Watch(tokens) as watch:
        distil(DistilJob(course, chosen, start, reads, weights or None), watch)
    _tell_route(out, json_only)


def heal(
    route: Annotated[Path, typer.Argument(help="A route file.")],
    text: TextOption,
    out: Annotated[Path, typer.Option(help="The healed route file, .json.")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "default",
    rank: Annotated[int, typer.Option(min=1, help="Of the products added to the weights.")] = 32,
    tokens: TokensOption = 1_000_000,
    rate: RateOption = 1e-3,
    batch: BatchOption = 8,
    loss: LossOption = "mixed",
    shards: ShardsOption = None,
    temperature: TemperatureOption = 0.8,
    checkpoint_s: CheckpointOption = 60.0,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 0,
    json_only: JsonOption = False,
) -> None:
    """Teach a route's slim to choose as full does; go on where a run before was ended."""
    from cluster.preflight import model_dir_of
    from cluster.trio.learn.course import Course
    from cluster.trio.learn.heal import HealJob
    from cluster.trio.learn.heal import heal as run
    from cluster.trio.learn.report import Watch

    check_temperature(temperature)
    _use(threads, device)
    course = Course(
        model_dir_of(model),
        text,
        json_out(out),
        _schedule(tokens, batch, rate, loss, seed, checkpoint_s),
        shards=shards,
        temperature=temperature,
        device=device,
    )
    with Watch(tokens) as watch:
        run(HealJob(course, route, rank), watch)
    _tell_route(out, json_only)


def _tell_route(path: Path, json_only: bool) -> None:
    """What was written, and how like full it is."""
    from actors.engine.route import read_route

    figures = read_route(path).figures
    told = ", ".join(f"{name} {figures[name]:.3f}" for name in ("agreement", "coupling"))
    line = json.dumps({"route": str(path), "figures": dict(figures)})
    give(f"{path}: {told}", line, json_only=json_only)


def dtype_for(asked: str, device: str) -> str:
    """The type that `--dtype` means on a device; ConfigError where it means none."""
    from actors.engine.loader import DTYPES
    from cluster.preflight import resolved_dtype

    try:
        dtype = resolved_dtype(asked, [device])
    except RuntimeError as error:
        raise ConfigError(f"--device {device}: {str(error).splitlines()[0]}") from None
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {asked}: give one of auto, {', '.join(DTYPES)}")
    return dtype


def check_temperature(temperature: float) -> None:
    """ConfigError where tokens cannot be drawn at it."""
    if not temperature > 0:
        raise ConfigError(f"--temperature {temperature:g}: give a number above 0")


def _use(threads: int, device: str) -> None:
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # Says nothing to a user: peft reads the attribute by its old name.
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
    if threads:
        torch.set_num_threads(threads)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device}: {str(error).splitlines()[0]}") from None


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--openers {path}: {error}") from None
    return tuple(line for line in text.splitlines() if line.strip())


def _schedule(
    tokens: int, batch: int, rate: float, loss: str, seed: int, checkpoint_s: float
) -> Schedule:
    from cluster.trio.learn.losses import LOSSES
    from cluster.trio.learn.train import Schedule

    if not 0 < rate < 1:
        raise ConfigError(f"--rate {rate:g}: give a number between 0 and 1, like 1e-3")
    if loss not in LOSSES:
        raise ConfigError(f"--loss {loss}: give {', '.join(LOSSES)}")
    return Schedule(
        tokens=tokens, batch=batch, rate=rate, loss=loss, seed=seed, checkpoint_s=checkpoint_s
    )


def _layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise ConfigError(f"--kept {text}: give layer numbers like 0,1,29") from None


def json_out(out: Path) -> Path:
    """The file to write, its folder made; ConfigError where it cannot be."""
    if out.suffix != ".json":
        raise ConfigError(f"--out {out}: give a name that ends in .json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}") from None
    if not os.access(out.parent, os.W_OK):
        raise ConfigError(f"--out {out}: that folder cannot be written to")
    return out
