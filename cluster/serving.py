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
from collections.abc import Iterator
from types import FrameType
from typing import Any

import httpx
import psutil
import ray
import torch
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from actors.messages import WorkerReport
from cluster.app import compose
from cluster.config import IMPORT_PATH, POLICY_PATH, Config, ConfigError
from cluster.config_pools import PoolConfig
from cluster.placement import RegistryClient, end_shared
from cluster.pools_status import is_stuck, lines_of
from cluster.preflight import Facts, check, check_machine
from cluster.sizes import cpus_of
from policies.vocabulary import Tier

READY_TIMEOUT_S = 600.0
STUCK_S = 10.0
"""So long must the workers that are missing have had no place before we go on without them."""
_POLL_S = 0.5
_LINGER_S = 3.0
_NAME = "viaserve"


class _Stop(BaseException):
    """SIGINT or SIGTERM came."""


def run(config: Config, http: dict[str, Any], address: str | None) -> None:
    """Serve until a signal. Errors of config and model are raised before Ray starts."""
    host, port = http.get("host", "127.0.0.1"), http.get("port", 8000)
    _check_port(host, port)
    if address is None:
        check_machine(config, os.cpu_count() or 1, torch.cuda.device_count())
    facts = check(config)
    _stop_on_signals()
    with contextlib.suppress(_Stop):
        _serve(facts, {"host": host, "port": port, **http}, address)


def _serve(facts: Facts, http: dict[str, Any], address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    begin = time.monotonic()
    # Serve's own "ready" comes before the workers are.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    print("viaserve: starting", flush=True)
    try:
        _start_ray(facts, address)
        _stop_on_signals()  # ray.init has put a handler of its own there
        serve.start(proxy_location="HeadOnly", http_options=http)
        _deploy(facts)
        base = f"http://{_url_host(http['host'])}:{http['port']}"
        _wait_ready(base)
        print(_report(facts), flush=True)
        print(f"viaserve: ready at {base} after {time.monotonic() - begin:.0f} s", flush=True)
        while True:
            signal.pause()
    finally:
        _ignore_signals()
        print("viaserve: stopping", flush=True)
        _end(address)


def _start_ray(facts: Facts, address: str | None) -> None:
    if address is not None:
        ray.init(address=address, namespace="serve", log_to_driver=False)
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


def _end(address: str | None) -> None:
    """End what this process started: the application, and Ray where it is our own."""
    # Listed first: once Ray's daemons are gone, their helpers are nobody's children.
    own = psutil.Process().children(recursive=True)
    if ray.is_initialized():
        if address is not None:
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


def _wait_ready(base: str) -> None:
    """Until every tier is there; or full is, and the others find no place or run out of time."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    told: set[str] = set()
    state = "loading"
    stuck_since: float | None = None
    while (now := time.monotonic()) < deadline:
        # Before the application is there, Serve answers with a text of its own.
        with contextlib.suppress(httpx.HTTPError, ValueError):
            status = httpx.get(f"{base}/ready", timeout=10.0).json()
            lines, state = lines_of(status["pools"]), status["status"]
            if state == "loading" or not is_stuck(status["pools"]):
                stuck_since = None
            elif stuck_since is None:
                stuck_since = now
            settled = stuck_since is not None and now - stuck_since >= STUCK_S
            if not settled and state != "ok":
                missing = [tier for tier, is_here in status["tiers"].items() if not is_here]
                lines.append(f"waiting for workers to load: {', '.join(missing)}")
            for line in lines:
                if line not in told:
                    print(f"viaserve: {line}", flush=True)
            told |= set(lines)
            if state == "ok" or settled:
                return
        time.sleep(_POLL_S)
    if state != "degraded":
        raise ConfigError(f"not ready within {READY_TIMEOUT_S:.0f} s; Ray's logs say more")


def _report(facts: Facts) -> str:
    """What was loaded where, and what sessions cost: a line a tier."""
    members = asyncio.run(RegistryClient().watch(-1, 1.0))
    lines = [
        f"viaserve: {facts.config.model.name} ({facts.fingerprint}), {facts.dtype},"
        f" context {facts.config.model.context}"
    ]
    for entry in sorted(members.workers, key=lambda e: e.report.worker_id):
        lines += _worker_lines(entry.report)
    return "\n".join(lines)


def _worker_lines(report: WorkerReport) -> Iterator[str]:
    invariant = "row-invariant" if report.row_invariant else "NOT row-invariant: exact up to ties"
    # Only full has to be: nobody asks it of a draft.
    law = f", {invariant}" if Tier.FULL in report.tiers else ""
    ranks = len(report.rank_pids)
    whose = f"in rank 0 of {ranks}" if ranks else "in all"
    yield (
        f"  {report.worker_id}: {report.device}, {report.threads} threads, weights"
        f" {_mb(report.weight_bytes)} {whose}{law}"
    )
    for tier, stats in report.engines.items():
        if not stats.slots:
            yield f"    {tier}: prompt lookup, no weights"
            continue
        per_session = stats.kv_bytes_per_token * stats.slot_tokens
        yield (
            f"    {tier}: weights {_mb(stats.weight_bytes)}, KV {stats.kv_bytes_per_token:,} B a"
            f" token, at most {_mb(per_session)} a session and {_mb(per_session * stats.slots)}"
            f" for {stats.slots} sessions"
        )


def _most_cpus(pool: PoolConfig) -> float:
    """Of one worker, whichever hardware it gets."""
    return max(cpus_of(way) * way.tp for way in pool.ways)


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"http: cannot listen on {host}:{port}: {error}") from error


def _url_host(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _stop_on_signals() -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stop

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
