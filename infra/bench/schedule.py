"""In which order the modes run. Pure: knows no clock, no network.

A machine's speed drifts, so the modes take turns on each chunk of prompts, and who goes
first rotates from chunk to chunk: a drift hits all modes alike.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from infra.bench.options import BenchOptions, Prompt

GAMMA_MAX, BLOCK_MAX = 8, 16  # of a random plan, where the options set no bound


@dataclass(frozen=True, slots=True)
class Question:
    """One request of one mode."""

    mode: str
    prompt: Prompt
    concurrency: int
    round: int
    gamma: int | None = None
    block: int | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A chunk's questions in one mode: they run together, and nothing else runs beside them."""

    mode: str
    concurrency: int
    questions: tuple[Question, ...]


def turns(
    options: BenchOptions, prompts: Sequence[Prompt], modes: Sequence[str], concurrency: int
) -> Iterator[Turn]:
    """All turns at one concurrency."""
    size = concurrency * options.waves
    chunks = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    for number in range(options.rounds * len(chunks)):
        chunk, turn_round = chunks[number % len(chunks)], number // len(chunks)
        first = number % len(modes)
        for mode in (*modes[first:], *modes[:first]):
            asked = (question(options, mode, prompt, concurrency, turn_round) for prompt in chunk)
            yield Turn(mode, concurrency, tuple(asked))


def question(
    options: BenchOptions, mode: str, prompt: Prompt, concurrency: int, turn_round: int
) -> Question:
    """The request, with a plan of its own where plans are random."""
    gamma, block = options.gamma, options.block
    if options.random_plan:
        key = (options.seed, mode, prompt.id, concurrency, turn_round)
        rng = random.Random(repr(key))
        gamma, block = rng.randint(1, gamma or GAMMA_MAX), rng.randint(1, block or BLOCK_MAX)
    return Question(mode, prompt, concurrency, turn_round, gamma, block)
