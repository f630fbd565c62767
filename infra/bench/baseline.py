"""`transformers.generate` as a target, in a child process that speaks JSON lines."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from infra.bench.options import GENERATE, BenchError, BenchOptions
from infra.bench.sample import Sample
from infra.bench.schedule import Question

CHILD = "infra.bench.generate"
LINE_BYTES = 1 << 24
START_TIMEOUT_S = 600.0


class GenerateBaseline:
    """The parent's end. One prompt at a time, greedily, whatever the concurrency."""

    def __init__(self, child: asyncio.subprocess.Process, options: BenchOptions) -> None:
        self.child = child
        self.options = options
        self.turn = asyncio.Lock()

    async def ask(self, question: Question) -> Sample:
        """One answer; a failure becomes the sample's error."""
        wanted = {
            "content": question.prompt.text,
            "max_tokens": self.options.max_tokens,
            "ignore_eos": self.options.ignore_eos,
        }
        try:
            async with self.turn:
                answer = await self.exchange(wanted, self.options.timeout_s)
        except BenchError as error:
            return Sample(question, error=str(error))
        times = tuple(answer["chunk_s"])
        return Sample(question, answer["text"], answer["tokens"], answer["e2e_s"], times)

    async def exchange(self, wanted: dict[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        """Send a line (none: only listen) and read one. Raises BenchError."""
        assert self.child.stdin
        assert self.child.stdout
        try:
            async with asyncio.timeout(timeout_s):
                if wanted is not None:
                    self.child.stdin.write(json.dumps(wanted).encode() + b"\n")
                    await self.child.stdin.drain()
                line = await self.child.stdout.readline()
        except TimeoutError:
            self.child.kill()  # a late answer would be taken for the next question's
            raise BenchError(f"generate: no answer in {timeout_s:g} s") from None
        except ConnectionError:
            line = b""
        if not line:
            raise BenchError(f"generate: its process ended with {await self.child.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(f"generate: {answer['error']}")
        return answer


@asynccontextmanager
async def generate_baseline(options: BenchOptions) -> AsyncIterator[GenerateBaseline]:
    """A started and loaded child, ended on exit."""
    assert options.baseline_generate
    model_dir = options.baseline_generate.absolute()
    if not model_dir.is_dir():
        raise BenchError(f"{GENERATE}: no model directory {model_dir}")
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    if options.threads:
        env["OMP_NUM_THREADS"] = str(options.threads)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", CHILD, str(model_dir), options.baseline_dtype),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parents[2],
        env=env,
        limit=LINE_BYTES,
    )
    try:
        baseline = GenerateBaseline(child, options)
        await baseline.exchange(None, START_TIMEOUT_S)
        yield baseline
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
