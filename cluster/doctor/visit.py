"""The whole visit: which checks there are, and in which order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from cluster.config import Config
from cluster.doctor import endpoint, gpus, layout, machine, nodes, packages
from cluster.doctor.finding import Finding, ok


@dataclass(frozen=True, slots=True)
class Patient:
    """`http`: Serve's HTTP options of the config; `address`: of a Ray cluster, `url`: of an
    endpoint, where there are any."""

    config: Config
    http: dict[str, Any]
    address: str | None = None
    url: str | None = None
    api_key: str = ""


def visit(patient: Patient) -> Iterator[Finding]:
    """One finding after the other. On a cluster the config is held to its nodes, else to this
    machine."""
    config, alone = patient.config, patient.address is None
    yield from packages.check_packages()
    cards, has_cards = gpus.check_gpus(_gpus_wanted(config) if alone else 0.0)
    devices = {way.device for pool in config.pools.values() for way in pool.ways}
    yield packages.check_torch(torch, devices if alone else set(), has_cards)
    yield from cards
    yield machine.check_shared_memory()
    yield machine.check_files()
    yield from machine.check_programs(_has_cpu_ranks(config))
    host, port = patient.http.get("host", "127.0.0.1"), patient.http.get("port", 8000)
    yield machine.check_port(host, port, served=_is_at(patient.url, port))
    if alone:
        yield machine.check_ray_ports()
    yield from _layout(config, alone)
    if patient.address is not None:
        yield from nodes.check_cluster(config, patient.address)
    if patient.url is not None:
        yield from endpoint.check_endpoint(patient.url, patient.api_key)


def _layout(config: Config, alone: bool) -> Iterator[Finding]:
    found, folder = layout.check_model(config)
    yield found
    if folder is not None:
        yield layout.check_files(config)
    if not alone:
        return
    yield from layout.check_cores(config, os.cpu_count() or 1, torch.cuda.device_count())
    memory = psutil.virtual_memory()
    if folder is not None and (folder / "config.json").is_file():
        yield layout.check_memory(config, folder, memory.total, memory.available)
    else:
        yield ok(layout.AREA, "memory", f"{memory.available / 2**30:.1f} GiB free")


def _gpus_wanted(config: Config) -> float:
    """On the pools' own hardware, those aside that can do with a CPU."""
    pools = [p for p in config.pools.values() if all(way.num_gpus for way in p.ways)]
    return sum(pool.num_gpus * pool.processes for pool in pools)


def _has_cpu_ranks(config: Config) -> bool:
    return any(way.tp > 1 and way.device == "cpu" for p in config.pools.values() for way in p.ways)


def _is_at(url: str | None, port: int) -> bool:
    """Whether an endpoint that was named may be what has the config's port."""
    return url is not None and url.rstrip("/").removesuffix("/v1").endswith(f":{port}")
