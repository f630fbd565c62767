"""What tracing costs of the processor: ingress, router, worker and export in one process, with and
without traces.

    python -m tests.observability.trace_cpu --requests 200 --rounds 20

The parts are the real ones, down to OTLP over HTTP; only the models are made up (`FakeEngine`),
so that nothing else is counted. A collector in a process of its own reads and forgets. Prints, for
servers that cannot trace, that trace none of their requests and that trace all of them, what one
request takes, in turn, and one line of JSON. Over a server's processor seconds a request this is
the share of its throughput that traces cost where the processor is what bounds it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import secrets
import statistics
import time
from collections.abc import AsyncGenerator
from multiprocessing.connection import Connection
from typing import Any

import httpx

from actors.heap import freeze_heap
from actors.ingress.app import create_app
from actors.ingress.failover import Failover
from actors.ingress.settings import IngressSettings
from actors.ingress.text import TextCodec
from actors.liveness import FailoverSettings
from actors.messages import GenerateRequest
from infra.tracing import Tracer, TracingSettings, open_tracer
from policies.vocabulary import Commit, Plan, PlanKind
from tests.actors.fakes import CHEAP, LARGE, World
from tests.ingress.conftest import byte_level_tokenizer
from tests.ingress.fakes import FakeBackend
from tests.observability.trace_cost import change, sink

LAYOUTS = {"together": ((*CHEAP, *LARGE),), "apart": (CHEAP, LARGE)}
ARMS = {"no exporter": None, "none traced": 0, "all traced": 1}
"""By the flag of `traceparent`; None: without a tracer."""


class Backend(FakeBackend):
    """One router, reached by a call."""

    def __init__(self, world: World, tracer: Tracer | None) -> None:
        super().__init__(lambda spec: [])
        router = world.router(*world.workers, tracer=tracer)
        self._failover = Failover(router.generate, FailoverSettings())

    def generate(self, request: GenerateRequest) -> AsyncGenerator[tuple[int, Commit], None]:
        return self._failover.generate(request)


class Arm:
    """A server of its own, and what its blocks took."""

    def __init__(self, url: str, flag: int | None, options: argparse.Namespace) -> None:
        self._flag = flag or 0
        self._options = options
        tracing = TracingSettings("otlp-http", url, 0.0)
        names = ("ingress", "router", "worker")
        self._tracers = [open_tracer(tracing, name) if flag is not None else None for name in names]
        world: Any = World(time.monotonic)  # type: ignore[arg-type]
        for number, tiers in enumerate(LAYOUTS[options.layout]):
            world.worker(f"w{number}", tiers).tracer = self._tracers[2]
        self._workers = world.workers
        codec = TextCodec(byte_level_tokenizer())
        settings = IngressSettings(
            model_name="toy",
            max_context=512,
            vocab_size=331,
            eos_ids=frozenset(),
            plan=Plan(PlanKind.TWO_TIER, gamma=4),
        )
        backend = Backend(world, self._tracers[1])
        app = create_app(settings, codec, backend, tracer=self._tracers[0])
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://here", timeout=60.0
        )
        self.request_s: list[float] = []

    async def block(self) -> None:
        """Some requests at once, again and again; their processor time, export included."""
        waiting = asyncio.Semaphore(self._options.concurrency)
        begin_s = time.process_time()
        numbers = range(self._options.requests)
        await asyncio.gather(*(self._ask(number, waiting) for number in numbers))
        for tracer in self._tracers:
            if tracer is not None:
                tracer.flush()
        self.request_s.append((time.process_time() - begin_s) / self._options.requests)
        for worker in self._workers:
            worker.requests.clear()

    async def _ask(self, number: int, waiting: asyncio.Semaphore) -> None:
        parent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{self._flag:02x}"
        body = {
            "model": "toy",
            "prompt": "the quick brown fox",
            "max_tokens": self._options.max_tokens,
            "seed": number,
            "ignore_eos": True,
        }
        async with waiting:
            answer = await self._client.post(
                "/v1/completions", json=body, headers={"traceparent": parent}
            )
        answer.raise_for_status()


def collect(told: Connection) -> None:
    """A collector in this process; its address is told first."""
    with sink() as (url, _):
        told.send(url)
        told.recv()


async def measure(url: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Processor seconds of a request, block by block, by arm."""
    arms = {name: Arm(url, flag, options) for name, flag in ARMS.items()}
    freeze_heap()  # as processes that serve do
    names = list(arms)
    for number in range(options.rounds + 1):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            await arms[name].block()
    return {name: arm.request_s[1:] for name, arm in arms.items()}  # the first one warms up


def report(seconds: dict[str, list[float]], options: argparse.Namespace) -> None:
    """What is added to the server that cannot trace, with 95 % bounds of the mean."""
    plain = seconds["no exporter"]
    base_s = statistics.fmean(plain)
    added: dict[str, Any] = {}
    print(f"no exporter: {1e3 * base_s:.2f} ms a request of {options.max_tokens} tokens")
    for name in list(ARMS)[1:]:
        percent, half = change([a / b for a, b in zip(seconds[name], plain, strict=True)])
        ms, half_ms = (10 * base_s * value for value in (percent, half))
        print(f"{name}: {ms:+.3f} ± {half_ms:.3f} ms a request")
        added[name] = {"ms": ms, "half_ms": half_ms}
    facts = {"layout": options.layout, "tokens": options.max_tokens, "base_ms": 1e3 * base_s}
    print(json.dumps({"trace_cpu": facts | {"added": added}}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layout", choices=list(LAYOUTS), default="together")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=24)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    collector = multiprocessing.get_context("spawn").Process(target=collect, args=(theirs,))
    collector.start()
    try:
        report(asyncio.run(measure(ours.recv(), options)), options)
    finally:
        ours.send(None)
        collector.join()


if __name__ == "__main__":
    main()
