"""Serve's own command line, `serve run` and `serve deploy`, on a config file of ours."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tests.serving.server import ROOT, START_TIMEOUT_S, STOP_TIMEOUT_S, free_port

SERVE = Path(sys.executable).with_name("serve")


def default_file() -> dict[str, Any]:
    """The shipped file, on a port that is free."""
    file = yaml.safe_load((ROOT / "config" / "default.yaml").read_text())
    file["http_options"]["port"] = free_port()
    return file


@dataclass(frozen=True)
class Run:
    """A running `serve run`."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    path: Path
    env: dict[str, str]

    def deploy(self, file: dict[str, Any]) -> None:
        """`serve deploy` with a changed file."""
        self.path.write_text(yaml.safe_dump(file))
        command = [str(SERVE), "deploy", str(self.path)]
        done = subprocess.run(
            command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status of /ready for which it holds."""
        status: dict[str, Any] = {}
        for _ in range(int(START_TIMEOUT_S)):
            assert self.process.poll() is None
            try:
                reply = self.client.get("/ready")
                status = reply.json()
                if reply.status_code == 200 and holds(status):
                    return status
            except (httpx.HTTPError, ValueError):
                pass
            # The process says nothing that could be waited for.
            try:
                self.process.wait(1.0)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError(status)


@contextmanager
def serve_run(path: Path, file: dict[str, Any]) -> Iterator[Run]:
    """`serve run` on the file, ready; ended by its id, with what it started."""
    path.write_text(yaml.safe_dump(file))
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    env = os.environ | token | {"RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        [str(SERVE), "run", str(path)],
        cwd=ROOT,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{file['http_options']['port']}"
        with httpx.Client(base_url=url, timeout=300.0) as client:
            run = Run(process, client, path, env)
            run.until(lambda status: status["status"] == "ok")
            yield run
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
        for straggler in psutil.wait_procs(family, timeout=10.0)[1]:
            straggler.kill()
