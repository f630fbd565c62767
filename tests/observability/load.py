"""A little load of all modes on a server, and a Prometheus beside it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.serving.server import free_port

MODES = ("auto", "off", "two_tier", "three_tier", "cascade", "via")
TOPICS = ("the sea", "a small town", "numbers", "bread", "a train", "winter")
_START_S = 60.0


def ask(url: str, mode: str, topic: str, max_tokens: int = 24) -> None:
    """One streamed answer."""
    body = {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": f"Write a sentence about {topic}."}],
        "max_tokens": max_tokens,
        "stream": True,
        "viaserve": {"mode": mode},
    }
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=300.0)
    answer.raise_for_status()
    assert "[DONE]" in answer.text, answer.text


def load(url: str, seconds: float, at_once: int = 2) -> int:
    """So many seconds of requests, each mode at least once; how many were answered."""
    begin, sent = time.monotonic(), 0
    with ThreadPoolExecutor(at_once) as pool:
        while sent < len(MODES) or time.monotonic() - begin < seconds:
            some = [(MODES[(sent + i) % len(MODES)], TOPICS[sent % len(TOPICS)]) for i in range(2)]
            list(pool.map(lambda pair: ask(url, *pair), some))
            sent += len(some)
    return sent


@contextmanager
def prometheus(config: str, folder: Path) -> Iterator[str]:
    """A Prometheus of this configuration; its URL."""
    port = free_port()
    (folder / "prometheus.yml").write_text(config)
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_ready(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(30.0)


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/-/ready", timeout=5.0).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise AssertionError(log.read_text())
