"""Laws of `serve` before anything is started: whose the port is, and which signals end it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import traceback
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.http_util import set_socket_reuse_port

from actors.engine.route import ModelError
from cluster import serving
from cluster.app import build
from cluster.config import parse
from cluster.console.start import PlainTeller
from cluster.errors import ConfigError
from cluster.files import ROOT
from cluster.serving import check_port, hold_port
from policies.placing import Node
from tests.serving.server import free_port

HOST = "127.0.0.1"


def serves_proxy(port: int) -> socket.socket:
    """A socket as Serve's proxy makes it."""
    listening = socket.socket()
    set_socket_reuse_port(listening)
    listening.bind((HOST, port))
    listening.listen()
    return listening


def test_a_second_server_is_refused_from_the_firsts_start_on() -> None:
    port = free_port()
    check_port(HOST, port)
    refused = pytest.raises(ConfigError, match=f"http: cannot listen on {HOST}:{port}: ")
    with hold_port(HOST, port), refused:
        check_port(HOST, port)
    check_port(HOST, port)


def test_serves_proxy_gets_every_connection_of_a_port_that_is_held() -> None:
    port = free_port()
    for _ in range(2):  # again right behind the first, amid connections that were just closed
        check_port(HOST, port)
        with hold_port(HOST, port), serves_proxy(port) as listening:
            listening.settimeout(10.0)
            for _ in range(20):
                with socket.create_connection((HOST, port)):
                    listening.accept()[0].close()


def test_a_start_that_fails_leaves_the_clusters_application_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    for name in ("_start_ray", "_stop_on_signals", "_ignore_signals", "end_shared"):
        monkeypatch.setattr(serving, name, lambda *_: None)
    monkeypatch.setattr(serving, "nodes_here", lambda: [Node({"role": "cheap"}, {}, {})])
    monkeypatch.setattr(serving.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(serving.ray, "shutdown", lambda: done.append("left"))
    monkeypatch.setattr(serving.serve, "delete", lambda name: done.append(f"deleted {name}"))
    control = {"label_selector": {"role": "head"}}
    config = parse({"pools": {"all": {"tiers": ["full"]}}, "control": control}, "test")
    facts: Any = SimpleNamespace(config=config)
    with pytest.raises(ConfigError, match="control: no node has role=head"):
        serving._serve(facts, {"host": HOST, "port": 8000}, "head:6379", PlainTeller())
    assert done == ["left"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"pools": {"all": {"tiers": ["full"], "slotz": 1}}}, "pools.all.slotz: no such key here"),
        ({"pools": {"all": {"tiers": ["full"]}}, "model": {"path": "/nowhere"}}, "/nowhere"),
    ],
)
def test_serve_status_shows_a_fault_of_the_config_without_what_it_came_from(
    args: dict[str, Any], says: str
) -> None:
    with pytest.raises((ConfigError, ModelError)) as caught:
        build(args)
    told = "".join(traceback.format_exception(caught.value))
    assert says in told.splitlines()[-1]
    assert "During handling" not in told
    assert "direct cause" not in told


WAITER = """
import signal
import sys
from cluster import serving
{before}
serving._stop_on_signals()
try:
    print("here", flush=True)
    sys.stdin.readline()
    print("went on", flush=True)
except serving._Stop:
    print("stopped", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "before", "said"),
    [
        pytest.param(signal.SIGINT, "", "stopped", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "", "stopped", marks=pytest.mark.slow),
        (signal.SIGHUP, "", "stopped"),
        # As under nohup.
        (signal.SIGHUP, "signal.signal(signal.SIGHUP, signal.SIG_IGN)", "went on"),
    ],
)
def test_a_closed_terminal_ends_it_as_ctrl_c_does_but_not_under_nohup(
    number: signal.Signals, before: str, said: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITER.format(before=before)],
        cwd=ROOT,
        # Whoever started the tests may have it ignored, which is handed down.
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            process.send_signal(number)
            assert process.communicate("\n", timeout=60)[0] == f"{said}\n"
        finally:
            process.kill()
    assert process.returncode == 0
