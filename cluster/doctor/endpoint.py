"""A running endpoint by its three open pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from cluster import __version__
from cluster.console.fleet import Fleet, fleet_of
from cluster.console.words import some
from cluster.doctor.finding import Finding, failed, ok, warning

AREA = "endpoint"
_PATIENCE_S = 10.0


def check_endpoint(
    url: str, api_key: str = "", transport: httpx.BaseTransport | None = None
) -> Iterator[Finding]:
    """/health, /ready and /version; only the first of them where that does not answer."""
    base = url.rstrip("/").removesuffix("/v1")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx.Client(headers=headers, timeout=_PATIENCE_S, transport=transport) as client:
        try:
            answers = {
                page: client.get(f"{base}/{page}") for page in ("health", "ready", "version")
            }
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            advice = "is `python -m cluster serve` running there, and http.host not loopback?"
            yield failed(AREA, "/health", f"{base}: {reason}", advice)
            return
    yield _health(answers["health"])
    yield from _ready(answers["ready"])
    yield _version(answers["version"])


def _health(answer: httpx.Response) -> Finding:
    if answer.status_code == 200:
        return ok(AREA, "/health", "200", status_code=200)
    advice = "no ingress answers: see Ray Serve's log (`serve status`)"
    code = answer.status_code
    return failed(AREA, "/health", str(code), advice, status_code=code)


def _ready(answer: httpx.Response) -> Iterator[Finding]:
    try:
        fleet = fleet_of(answer.json())
    except (ValueError, KeyError, TypeError, AttributeError):
        advice = "another server has that port; give --url of a viaserve"
        yield failed(AREA, "/ready", f"{answer.status_code}, not a viaserve's", advice)
        return
    missing = ", ".join(fleet.missing_tiers)
    workers = some(len(fleet.workers), "worker")
    figures = {"state": fleet.state, "workers": len(fleet.workers), "running": fleet.running}
    if fleet.state == "ok":
        yield ok(AREA, "/ready", f"ok, {workers}", **figures)
    elif fleet.state == "degraded":
        advice = "see the pools below; full serves without them"
        yield warning(AREA, "/ready", f"degraded, without {missing}", advice, **figures)
    else:
        why = fleet.why or f"without {missing}"
        advice = "wait for the workers to load; the pools below say what is missing"
        yield failed(AREA, "/ready", f"{fleet.state}, {why}", advice, **figures)
    yield from _workers(fleet)


def _workers(fleet: Fleet) -> Iterator[Finding]:
    for pool in fleet.pools:
        for one in pool.missing:
            say = f"{one.worker_id}: {one.why}"
            advice = "it loads" if one.placed else "see docs/deploy.md: hardware, labels, fallback"
            yield warning(AREA, f"pool {pool.name}", say, advice)
    for worker in fleet.workers:
        if worker.health != "ok":
            advice = "see docs/failures.md; `python -m cluster top` shows it live"
            yield warning(AREA, f"worker {worker.worker_id}", worker.health, advice)


def _version(answer: httpx.Response) -> Finding:
    try:
        told: dict[str, Any] = answer.json()
        version, model, invariant = told["version"], told["model"], told["row_invariant"]
    except (ValueError, KeyError, TypeError):
        advice = "another server has that port; give --url of a viaserve"
        return failed(AREA, "/version", f"{answer.status_code}, not a viaserve's", advice)
    said = f"viaserve {version}, {model} in {told.get('dtype')}"
    figures = {"version": version, "fingerprint": told.get("fingerprint")}
    if version != __version__:
        advice = f"this is viaserve {__version__}: use the same on both sides"
        return warning(AREA, "/version", said, advice, **figures)
    if invariant is False:
        advice = "exact up to ties: dtype float32, or hardware with row-invariant kernels"
        return warning(AREA, "/version", f"{said}, not row-invariant", advice, **figures)
    return ok(AREA, "/version", said, **figures)
