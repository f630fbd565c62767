"""A rank group: how its processes find each other, and that they end together.

A rank that has lost another cannot go on, since their keys and values no longer belong
together: the whole group ends at once, and whoever started it starts another.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Never

import torch
from torch import distributed

from actors.engine.ranks.exchange import Exchange, GroupExchange
from actors.engine.ranks.links import Hub, Spoke
from actors.engine.ranks.shared_memory import (
    SHARED_DIR,
    SharedMemoryExchange,
    is_ordered,
    shared_bytes,
)

_c10d: Any = distributed
_HUB = "hub"
_FILE = "file"


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """`size` ranks that meet at the store of `host` and `port` (`open_store`). `token`: 32
    characters of this group alone. `timeout_s`: for meeting, loading and each collective."""

    size: int
    host: str
    port: int
    token: str
    timeout_s: float = 600.0


def open_store(host: str, timeout_s: float = 600.0) -> Any:
    """The meeting point, on a free port; whoever starts the ranks keeps it while they live."""
    return _c10d.TCPStore(
        host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=timeout_s)
    )


class RankGroup:
    """One rank's membership."""

    def __init__(self, spec: GroupSpec, rank: int, device: torch.device) -> None:
        """Meets the other ranks; every rank of the group must be doing the same."""
        self.rank = rank
        self.size = spec.size
        self.device = device
        limit = timedelta(seconds=spec.timeout_s)
        store = _c10d.TCPStore(spec.host, spec.port, is_master=False, timeout=limit)
        self.pids: tuple[int, ...] = ()
        """Processes of the group, by rank; rank 0 knows them."""
        self.hub: Hub | None = None
        self.spoke: Spoke | None = None
        if rank == 0:
            host = _own_address(spec.host, spec.port)
            self.hub = Hub(host, spec.token, spec.timeout_s)
            store.set(_HUB, f"{self.hub.port} {host}")
            self.hub.meet(spec.size - 1)
            self.pids = (os.getpid(), *self.hub.pids)
            self.hub.watch(lambda: leave("a follower is gone"))
        else:
            port, host = store.get(_HUB).decode().split()
            self.spoke = Spoke(host, int(port), spec.token, rank, spec.timeout_s)
            self.spoke.watch(lambda: leave("rank 0 is gone"))
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(
            backend,
            store=_c10d.PrefixStore("group", store),
            rank=rank,
            world_size=spec.size,
            timeout=limit,
        )
        self.exchange = self._exchange(store)

    def _exchange(self, store: Any) -> Exchange:
        """Shared memory where all ranks see the same and have no GPU, else the process group."""
        over_group = GroupExchange(distributed.group.WORLD, self.rank, self.size)
        if self.device.type != "cpu" or not is_ordered():
            return over_group
        if self.rank == 0:
            store.set(_FILE, _shared_file(self.size))
        path = Path(store.get(_FILE).decode())
        # The name is random, so a file of that name is this group's.
        sees = torch.tensor([path.is_file()], dtype=torch.int32)
        distributed.all_reduce(sees, distributed.ReduceOp.MIN)
        exchange = SharedMemoryExchange(path, self.rank, self.size) if sees else over_group
        distributed.barrier()
        if self.rank == 0:
            path.unlink(missing_ok=True)
        return exchange


def leave(reason: str) -> Never:
    """End this process at once: it may be inside a collective that no exception reaches."""
    print(f"viaserve: rank group ends: {reason}", file=sys.stderr, flush=True)
    os._exit(1)


@contextlib.contextmanager
def or_leave() -> Iterator[None]:
    """What fails in here leaves the ranks apart, so it ends the group."""
    try:
        yield
    except BaseException as error:
        leave(f"{type(error).__name__}: {error}")


def _own_address(host: str, port: int) -> str:
    """The address that others of the group reach this host by: the one it reaches them by."""
    with socket.create_connection((host, port)) as line:
        return line.getsockname()[0]


def _shared_file(size: int) -> str:
    """A file of zeros; "" where there is no room for it."""
    try:
        handle, name = tempfile.mkstemp(prefix="viaserve-ranks-", dir=SHARED_DIR)
        try:
            os.posix_fallocate(handle, 0, shared_bytes(size))
        finally:
            os.close(handle)
    except OSError:
        return ""
    return name
