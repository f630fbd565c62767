"""`python -m cluster serve`: one machine's own Ray, the application on it, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import time
from types import FrameType
from typing import Any

import psutil
import ray
import torch
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from cluster.app import compose
from cluster.config import IMPORT_PATH, POLICY_PATH, Config, ConfigError
from cluster.config_pools import PoolConfig
from cluster.console.loaded import loaded_lines
from cluster.console.look import Away, Watcher
from cluster.console.start import Stage, Teller
from cluster.nodes import nodes_here
from cluster.placement import RegistryClient, end_shared
from cluster.preflight import Facts, check, check_control, check_machine
from cluster.reach import JOIN_ADVICE, START_ADVICE, reason, unreachable
from cluster.sizes import cpus_of
from cluster.waiting import wait_ready

_POLL_S = 0.5
_LOOK_S = 1.5
_LINGER_S = 3.0
_NAME = "viaserve"
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stop(BaseException):
    """One of the signals that end it came."""


def run(config: Config, http: dict[str, Any], address: str | None, teller: Teller) -> None:
    """Serve until a signal. Errors of config and model are raised before Ray starts."""
    if address is not None and (fault := unreachable(address)) is not None:
        raise ConfigError(f"--address {address}: {fault}; {START_ADVICE}")
    host, port = http.get("host", "127.0.0.1"), http.get("port", 8000)
    check_port(host, port)
    with contextlib.ExitStack() as stack:
        if address is None:
            stack.enter_context(hold_port(host, port))
            check_machine(config, os.cpu_count() or 1, torch.cuda.device_count())
        teller.begin(Stage.MODEL, config.model.name)
        facts = check(config)
        _stop_on_signals()
        stack.enter_context(contextlib.suppress(_Stop))
        _serve(facts, {"host": host, "port": port, **http}, address, teller)


def _serve(facts: Facts, http: dict[str, Any], address: str | None, teller: Teller) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    begin, deploys = time.monotonic(), False
    # Serve's own "ready" comes before the workers are.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    teller.begin(Stage.RAY, address or "of this machine's own")
    try:
        _start_ray(facts, address)
        check_control(facts.config, nodes_here())
        _stop_on_signals()  # ray.init has put a handler of its own there
        serve.start(proxy_location="HeadOnly", http_options=http)
        teller.begin(Stage.APPLICATION)
        deploys = True
        _deploy(facts)
        base = f"http://{_url_host(http['host'])}:{http['port']}"
        teller.begin(Stage.WORKERS)
        wait_ready(base, teller)
        teller.begin(Stage.ENDPOINT)
        members = asyncio.run(RegistryClient().watch(-1, 1.0))
        loaded = loaded_lines(facts, [entry.report for entry in members.workers])
        teller.ready(base, time.monotonic() - begin, loaded)
        _watch(base, teller)
    finally:
        _ignore_signals()
        teller.stopping()
        # Without a deployment of ours, what a cluster may have under the name is another's.
        deletes = deploys and (address is not None or facts.config.tracing.exporter != "none")
        _end(deletes=deletes)


def _watch(base: str, teller: Teller) -> None:
    """Until a signal comes."""
    with contextlib.closing(Watcher(base)) as watcher:
        while teller.watches:
            try:
                teller.looked(watcher.look())
            except Away as away:
                teller.looked(away)
            time.sleep(_LOOK_S)
    while True:
        signal.pause()


def _start_ray(facts: Facts, address: str | None) -> None:
    if address is not None:
        try:
            ray.init(
                address=address,
                namespace="serve",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray raises many kinds; versions that differ among them
            raise ConfigError(f"--address {address}: {reason(error)}; {JOIN_ADVICE}") from error
        return
    # What the pools ask for may be more than the machine has: its cores can be shared.
    pools = facts.config.pools.values()
    ray.init(
        address="local",
        namespace="serve",
        num_cpus=math.ceil(sum(pool.scale().max_workers * _most_cpus(pool) for pool in pools)) + 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _deploy(facts: Facts) -> None:
    """Until its replicas are there. No `blocking`: our own wait ends on a signal and cleans up."""
    if not facts.config.scales:
        serve.run(compose(facts), name=_NAME, route_prefix="/")
        return
    # In Ray 2.60 only a Serve file, not `serve.run`, gives an application a policy of its own.
    application = {
        "name": _NAME,
        "route_prefix": "/",
        "import_path": IMPORT_PATH,
        "args": facts.config.model_dump(mode="json"),
        "autoscaling_policy": {"policy_function": POLICY_PATH},
    }
    client = _get_global_client()
    assert client is not None, "Serve was started just before"
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))
    while (deployed := serve.status().applications[_NAME]).status != ApplicationStatus.RUNNING:
        if deployed.status == ApplicationStatus.DEPLOY_FAILED:
            reason = (deployed.message.strip() or "no reason given").splitlines()[-1]
            raise ConfigError(f"Ray Serve cannot deploy it: {reason}")
        time.sleep(_POLL_S)


def _end(*, deletes: bool) -> None:
    """End what this process started: the application, and Ray where it is our own. `deletes`: the
    application by itself. An own Ray takes it along, but its parts may have a last word to say."""
    # Listed first: once Ray's daemons are gone, their helpers are nobody's children.
    own = psutil.Process().children(recursive=True)
    if ray.is_initialized():
        if deletes:
            with contextlib.suppress(Exception):
                serve.delete(_NAME)
                end_shared()
        # An own Ray ends with all that runs in it.
        ray.shutdown()
    _, left = psutil.wait_procs(own, timeout=_LINGER_S)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_LINGER_S)


def _most_cpus(pool: PoolConfig) -> float:
    """Of one worker, whichever hardware it gets."""
    return max(cpus_of(way) * way.tp for way in pool.ways)


def check_port(host: str, port: int) -> None:
    """ConfigError where somebody listens there, or holds it."""
    with _socket(host) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"http: cannot listen on {host}:{port}: {error}") from error


def hold_port(host: str, port: int) -> socket.socket:
    """Until it is closed, others fail at `check_port`. Serve's proxies share a port with whoever
    lets them, so of two servers that start at once each would get some of the requests. It never
    listens, and lets Serve's proxy share."""
    held = _socket(host)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Connections of a server of before may be in the way for a minute; of no other one.
    with contextlib.suppress(OSError):
        held.bind((host, port))
    return held


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def _url_host(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _stop_on_signals() -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stop

    for number in _ENDS:
        # `nohup` has it ignored; a terminal that closes has not.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def _ignore_signals() -> None:
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)
