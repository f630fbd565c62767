"""The run: every turn in its order, one after the other, then the report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from infra.bench.baseline import generate_baseline
from infra.bench.endpoint import Endpoint, connect, first_model
from infra.bench.options import GENERATE, BenchError, BenchOptions, Prompt, load_prompts
from infra.bench.report import BenchReport, build
from infra.bench.sample import Sample, Target, TurnResult
from infra.bench.schedule import Question, Turn, question, turns

Saw = Callable[[int, int, str], None]
"""Is told how many requests are answered, of how many, and the mode of the last one."""


async def run_bench(
    options: BenchOptions,
    transport: httpx.AsyncBaseTransport | None = None,
    saw: Saw = lambda done, total, mode: None,
) -> BenchReport:
    """Measure and report. Raises BenchError where it cannot start; failed requests are in the
    report."""
    model, results = await measure(options, transport, saw)
    return build(options, model, results)


async def measure(
    options: BenchOptions,
    transport: httpx.AsyncBaseTransport | None = None,
    saw: Saw = lambda done, total, mode: None,
) -> tuple[str, list[TurnResult]]:
    """The model's name and every turn's answers. Raises BenchError where it cannot start."""
    prompts = load_prompts(options.prompts, options.limit)
    planned = [
        turn
        for level in options.concurrency
        for turn in turns(options, prompts, _modes_at(options, level), level)
    ]
    total, done = sum(len(turn.questions) for turn in planned), 0
    async with _targets(options, transport) as (targets, model):
        await _warm_up(options, prompts, targets)
        results = []
        for turn in planned:
            results.append(await take(turn, targets[turn.mode]))
            # Between turns, where no clock runs.
            done += len(turn.questions)
            saw(done, total, turn.mode)
    return model, results


async def take(turn: Turn, target: Target) -> TurnResult:
    """All of a turn's questions, at most `concurrency` of them at a time."""
    slots = asyncio.Semaphore(turn.concurrency)
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ask(slots, target, asked)) for asked in turn.questions]
    wall_s = time.perf_counter() - start
    return TurnResult(turn, tuple(task.result() for task in tasks), wall_s)


async def _ask(slots: asyncio.Semaphore, target: Target, asked: Question) -> Sample:
    async with slots:
        return await target.ask(asked)


def _modes_at(options: BenchOptions, level: int) -> Sequence[str]:
    """The baseline answers one prompt at a time, so one concurrency, the first, is enough."""
    wants_baseline = options.baseline_generate and level == options.concurrency[0]
    return (*options.modes, GENERATE) if wants_baseline else options.modes


async def _warm_up(
    options: BenchOptions, prompts: Sequence[Prompt], targets: Mapping[str, Target]
) -> None:
    """Unmeasured requests, so that no mode pays for being the first. Raises BenchError."""
    for mode, target in targets.items():
        for prompt in prompts[: options.warmup]:
            sample = await target.ask(question(options, mode, prompt, 1, 0))
            if sample.error:
                raise BenchError(f"warm-up of mode {mode} failed: {sample.error}")


@asynccontextmanager
async def _targets(
    options: BenchOptions, transport: httpx.AsyncBaseTransport | None
) -> AsyncIterator[tuple[dict[str, Target], str]]:
    """Who answers each mode, and the model's name."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(options, transport))
        model = options.model or await first_model(client)
        targets: dict[str, Target] = {}
        for mode in options.modes:
            targets[mode] = Endpoint(client, options, model)
        if options.baseline_generate:
            targets[GENERATE] = await stack.enter_async_context(generate_baseline(options))
        yield targets, model
