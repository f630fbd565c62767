"""What tracing costs: the same load on a server that traces and on one that cannot, in turn.

    python -m tests.observability.trace_cost --rounds 16 --set model.dtype=float32
    python -m tests.observability.trace_cost --rounds 30 --starts 2 --toy

With --toy the model is so small that serving is all bookkeeping: what tracing adds there is its
cost beside no computing at all, and it shows through the noise.

The server that traces has an exporter and is told by each request's `traceparent` whether it is
traced, so that shares of traced requests take turns on it; the other one has none. Both stay up.
Prints a table and one line of JSON: tokens a second and the server's processor seconds a token,
each share over the other server's in the same round, with 95 % bounds of the mean over rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
from scipy import stats

from tests.engine.toys import save_route, save_toy, save_words, text
from tests.serving.server import Server, serving

LAYERS = 4
PROMPTS = (
    "Name three colours and say where they are seen.",
    "Explain why the sky is blue.",
    "Write two sentences about the sea.",
    "What is 12 times 14? Show the steps.",
)


@dataclass(frozen=True)
class Block:
    """One run of the load."""

    tokens: int
    wall_s: float
    cpu_s: float

    @property
    def speed(self) -> float:
        return self.tokens / self.wall_s

    @property
    def cpu_per_token_s(self) -> float:
        return self.cpu_s / self.tokens


@contextmanager
def sink() -> Iterator[tuple[str, list[int]]]:
    """A collector that reads and forgets: its url, and the sizes of what came."""
    sizes: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sizes.append(len(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sizes
    finally:
        server.shutdown()
        server.server_close()


def cpu_s(server: Server) -> float:
    """Processor seconds of the server and all that it started."""
    root = psutil.Process(server.process.pid)
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def chat(number: int) -> dict[str, Any]:
    """A request's model and prompt."""
    content = PROMPTS[number % len(PROMPTS)]
    return {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": content}]}


def words(number: int) -> dict[str, Any]:
    """The same for the toy."""
    prompt = " ".join(f"t{token}" for token in text(number % len(PROMPTS), 20))
    return {"model": "toy", "prompt": prompt}


def load(server: Server, frac: float, options: argparse.Namespace) -> Block:
    """The requests, of which the first `frac` of each ten are traced."""

    def ask(number: int) -> int:
        sampled = number % 10 < round(10 * frac)
        parent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{int(sampled):02x}"
        body = {
            **(words(number) if options.toy else chat(number)),
            "max_tokens": options.max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "viaserve": {"mode": options.mode},
        }
        url = f"{server.url}/v1/{'completions' if options.toy else 'chat/completions'}"
        reply = client.post(url, json=body, headers={"traceparent": parent})
        reply.raise_for_status()
        return reply.json()["usage"]["completion_tokens"]

    with httpx.Client(timeout=600.0) as client, ThreadPoolExecutor(options.concurrency) as pool:
        begin_s, begin_cpu_s = time.monotonic(), cpu_s(server)
        tokens = sum(pool.map(ask, range(options.requests)))
        wall_s = time.monotonic() - begin_s
    time.sleep(2.5)  # what is traced is exported within two seconds; it counts
    return Block(tokens, wall_s, cpu_s(server) - begin_cpu_s)


def toy(folder: Path) -> list[str]:
    """Make a model of some thousand weights there, its draft half of its layers; settings."""
    save_words(save_toy(folder, "llama"))
    draft = save_route(folder / "draft.json", folder, LAYERS, [0, LAYERS - 1])
    return [
        f"model.path={folder}",
        "model.name=toy",
        "model.context=512",
        "model.dtype=float32",
        f"draft={{kind: route, path: {draft}}}",
        "slim=null",
        "pools.local.tiers=[draft, full]",
    ]


def change(ratios: Sequence[float]) -> tuple[float, float]:
    """Mean of the ratios less one in percent, and half of its 95 % interval."""
    half = math.inf
    if len(ratios) > 1:
        error = statistics.stdev(ratios) / math.sqrt(len(ratios))
        half = 100 * error * float(stats.t.ppf(0.975, len(ratios) - 1))
    return 100 * (statistics.fmean(ratios) - 1), half


Round = dict[float | None, Block]
"""By share of traced requests; of the server that cannot trace, None."""


def measure(servers: dict[bool, Server], options: argparse.Namespace) -> list[Round]:
    """Rounds of all arms, each beginning with another one. `servers`: by whether they trace."""
    arms: list[float | None] = [None, *options.fracs]
    for server in servers.values():
        load(server, 1.0, options)
    rounds: list[Round] = []
    for number in range(options.rounds):
        turn = number % len(arms)
        order = [*arms[turn:], *arms[:turn]]
        blocks = {arm: load(servers[arm is not None], arm or 0.0, options) for arm in order}
        rounds.append(blocks)
        over = [f"{f:.0%} {blocks[f].speed / blocks[None].speed:.3f}" for f in options.fracs]
        print(
            f"round {number + 1}: {blocks[None].speed:.1f} tokens/s; {', '.join(over)}", flush=True
        )
    return rounds


def report(rounds: Sequence[Round], num_bytes: int, options: argparse.Namespace) -> None:
    """A row for each share: change over the server that cannot trace."""
    rows = []
    mean = statistics.fmean(blocks[None].speed for blocks in rounds)
    cpu_s = statistics.fmean(blocks[None].cpu_per_token_s for blocks in rounds)
    print(f"\n{len(rounds)} rounds; without an exporter {mean:.1f} tokens/s, {cpu_s:.4f} s of")
    print("processor time a token. Change in %:")
    print(f"{'traced':>8} {'tokens/s':>16} {'cpu s a token':>16}")
    for frac in options.fracs:
        pairs = [(blocks[None], blocks[frac]) for blocks in rounds]
        speed = change([after.speed / before.speed for before, after in pairs])
        cpu = change([after.cpu_per_token_s / before.cpu_per_token_s for before, after in pairs])
        told = [f"{value:.2f} ± {half:.2f}" for value, half in (speed, cpu)]
        print(f"{frac:>8.0%} {told[0]:>16} {told[1]:>16}")
        rows.append({"frac": frac, "speed": speed, "cpu": cpu})
    facts = {"rounds": len(rounds), "tokens_per_s": mean, "cpu_s": cpu_s, "bytes": num_bytes}
    print(json.dumps({"trace_cost": facts | {"shares": rows}}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fracs", type=lambda text: [float(f) for f in text.split(",")], default=[0.0, 0.1, 1.0]
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--starts", type=int, default=1, help="fresh servers, so many times")
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--mode", default="two_tier")
    parser.add_argument("--config", default="config/default.yaml")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--toy", action="store_true")
    options = parser.parse_args()
    rounds: list[Round] = []
    with sink() as (url, sizes), TemporaryDirectory() as folder:
        tracing = ["exporter=otlp-http", f"endpoint={url}", "sample_frac=0"]
        plain = [*(toy(Path(folder)) if options.toy else []), *options.settings]
        traced = [*plain, *(f"tracing.{each}" for each in tracing)]
        for number in range(options.starts):
            # The one that is started first differs from start to start.
            kinds = [True, False] if number % 2 else [False, True]
            with ExitStack() as stack:
                servers = {
                    kind: stack.enter_context(
                        serving(traced if kind else plain, config=options.config)
                    )
                    for kind in kinds
                }
                rounds += measure(servers, options)
        report(rounds, sum(sizes), options)


if __name__ == "__main__":
    main()
