"""A Ray cluster over namespaced hosts, and `python -m cluster serve` on it."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.hosts.netns import Host, Network, network
from tests.serving.server import ROOT, START_TIMEOUT_S, STOP_TIMEOUT_S

GCS_PORT = 6379
HTTP_PORT = 8000
POLL_S = 0.1
_RAY = str(Path(sys.executable).with_name("ray"))


@dataclass
class Cluster:
    """Hosts by name; the first is the head. `folder` holds the token and what they log."""

    net: Network
    folder: Path
    env: dict[str, str]
    head: Host | None = None
    started: dict[str, Any] = field(default_factory=dict)

    def join(self, name: str, num_cpus: int, labels: Mapping[str, str]) -> Host:
        """Start Ray on a host, a new one or one that was killed."""
        host = self.net.hosts.get(name) or self.net.add(name)
        if self.head is None:
            self.head = host
        where = (
            ["--head", f"--port={GCS_PORT}", "--include-dashboard=false"]
            if host is self.head
            else [f"--address={self.head.address}:{GCS_PORT}"]
        )
        command = [
            *(_RAY, "start", *where, f"--node-ip-address={host.address}"),
            *(f"--num-cpus={num_cpus}", "--object-store-memory=100000000"),
            *(f"--temp-dir={self.folder}/{name}", "--disable-usage-stats"),
        ]
        if labels:
            command.append("--labels=" + ",".join(f"{k}={v}" for k, v in labels.items()))
        host.run(*command, env=self.env)
        return host

    @property
    def url(self) -> str:
        """Of the endpoint, over the bridge."""
        assert self.head is not None
        return f"http://{self.head.address}:{HTTP_PORT}"

    def ready(self) -> dict[str, Any]:
        """What /ready says now."""
        return httpx.get(f"{self.url}/ready", timeout=30.0).json()

    def until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> float:
        """Wait until /ready says so; gives the seconds that it took."""
        begin = time.monotonic()
        status: dict[str, Any] = {}
        while time.monotonic() - begin < START_TIMEOUT_S:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                status = self.ready()
                if holds(status):
                    return time.monotonic() - begin
            time.sleep(POLL_S)
        raise AssertionError(f"not {what}: {status}")

    @contextlib.contextmanager
    def serving(self, config: str, settings: Sequence[str]) -> Iterator[Path]:
        """`python -m cluster serve` on the head; gives the file of its output."""
        assert self.head is not None
        command = [sys.executable, "-m", "cluster", "serve", "--config", config]
        command += ["--address", f"{self.head.address}:{GCS_PORT}"]
        own = [f"http.host={self.head.address}", f"http.port={HTTP_PORT}"]
        for setting in [*own, *settings]:
            command += ["--set", setting]
        log = self.folder / "serve.log"
        with log.open("wb") as out:
            process = self.head.start(*command, env=self.env, out=out, cwd=ROOT)
            try:
                end = time.monotonic() + START_TIMEOUT_S
                while "ready at" not in log.read_text():
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < end, log.read_text()
                    time.sleep(POLL_S)
                yield log
            finally:
                process.terminate()
                process.wait(STOP_TIMEOUT_S)
        assert process.returncode == 0, log.read_text()


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster without hosts. The path of a socket of Ray's must be short, so no tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="vs"))
    try:
        token = folder / "token"
        token.write_text(secrets.token_hex(16))
        token.chmod(0o600)
        env = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WORKER_PRESTART": "0",
            "RAY_worker_niceness": "0",
            "GOMP_SPINCOUNT": "0",
        }
        with network() as net:
            yield Cluster(net, folder, env)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
