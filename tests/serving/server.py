"""Runs `python -m cluster serve` for tests as a user would, and sees that nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Server:
    """A running server. `output` grows while it runs."""

    process: subprocess.Popen[str]
    url: str
    output: list[str]

    def ready(self) -> dict[str, Any]:
        return httpx.get(f"{self.url}/ready", timeout=30.0).json()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(
    settings: Sequence[str] = (),
    env: dict[str, str] | None = None,
    config: str = "config/default.yaml",
) -> Iterator[Server]:
    """Serve a config with `--set` settings; on the way out SIGTERM must end it all."""
    port = free_port()
    command = [sys.executable, "-m", "cluster", "serve", "--config", config]
    command += ["--set", f"http.port={port}"]
    for setting in settings:
        command += ["--set", setting]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    output: list[str] = []
    ready = threading.Event()
    reader = threading.Thread(target=_read, args=(process, output, ready), daemon=True)
    reader.start()
    assert process.stdout is not None
    try:
        assert ready.wait(START_TIMEOUT_S), "".join(output)
        assert process.poll() is None, "".join(output)
        yield Server(process, f"http://127.0.0.1:{port}", output)
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if _alive(process) else []
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S)
        _, left = psutil.wait_procs(family, timeout=10.0)
        for straggler in left:
            straggler.kill()
        reader.join()
        process.stdout.close()
    assert not left, [p.pid for p in left]
    assert process.returncode == 0, "".join(output)


def _read(process: subprocess.Popen[str], output: list[str], ready: threading.Event) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        output.append(line)
        if "ready at" in line:
            ready.set()
    ready.set()


def _alive(process: subprocess.Popen[str]) -> bool:
    return process.poll() is None
