"""Whole hosts, links and processes are lost under sixteen streams: each goes on with the same
bytes, or ends with a clear error where there is nobody left to go on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest

from tests.hosts.cluster import Cluster, cluster
from tests.hosts.netns import Host, why_not
from tests.hosts.streams import Stream, paused_s, streamed

pytestmark = pytest.mark.slow

LABEL = "pool"
WORKER_WAIT_S = 120.0
PARTITION_S = 10.0
SETTINGS = [
    "model.dtype=float32",
    "model.context=1024",
    f"router.worker_wait_s={WORKER_WAIT_S}",
    "router.replicas=2",
    f"control.label_selector={{{LABEL}: head}}",
    *(f"pools.{pool}.label_selector={{{LABEL}: {pool}}}" for pool in ("cheap", "large")),
    *(f"pools.{pool}.num_cpus=1" for pool in ("cheap", "large")),
]
Fault = Callable[[], Awaitable[None]]


@dataclass
class Fleet:
    """The served cluster, and what it answers when nothing happens to it."""

    cluster: Cluster
    undisturbed: list[Stream] = field(default_factory=list)

    @property
    def cheap(self) -> Host:
        return self.cluster.net.hosts["cheap"]

    @property
    def large(self) -> Host:
        return self.cluster.net.hosts["large"]

    def worker(self, pool: str) -> int:
        """The process of the pool's only worker, once the router that is asked knows it."""
        pids: list[int] = []

        def knows(status: dict[str, Any]) -> bool:
            pids[:] = [w["pid"] for w in status["workers"] if w["pool"] == pool]
            return len(pids) == 1

        self.cluster.until(knows, f"one worker of {pool}")
        return pids[0]

    def routers(self) -> list[int]:
        """The processes of the router's replicas."""
        assert self.cluster.head is not None
        named = {pid: psutil.Process(pid).cmdline() for pid in self.cluster.head.pids()}
        return sorted(p for p, line in named.items() if "viaserve:router" in " ".join(line))

    async def drill(self, what: str, fault: Fault) -> None:
        """Streams that must give the undisturbed answers, though something happens to them."""
        streams, struck_s = await streamed(self.cluster.url, fault)
        assert [s.error for s in streams] == [None] * len(streams)
        assert [s.answer for s in streams] == [s.answer for s in self.undisturbed]
        after = [s for s in streams if s.times_s[-1] > struck_s]
        assert len(after) == len(streams), "some were over before it happened"
        pauses = paused_s(streams, struck_s)
        usual = paused_s(self.undisturbed, self.undisturbed[0].times_s[0])
        whole_s = self.cluster.until(is_whole, "whole again")
        print(
            f"\n{what}: 0 of {len(streams)} failed; a stream paused for at most"
            f" {pauses[-1]:.1f} s (median {pauses[len(pauses) // 2]:.1f}; undisturbed at most"
            f" {usual[-1]:.1f}, median {usual[len(usual) // 2]:.1f});"
            f" whole again {whole_s:.0f} s after the last stream"
        )


def is_whole(status: dict[str, Any]) -> bool:
    return status["status"] == "ok"


def is_degraded(status: dict[str, Any]) -> bool:
    tiers = status["tiers"]
    lost = not tiers["draft"] and not tiers["slim"]
    return status["status"] == "degraded" and tiers["full"] and lost


def is_without_full(status: dict[str, Any]) -> bool:
    return status["tiers"] == {"draft": True, "full": False, "slim": True}


async def until(fleet: Fleet, holds: Callable[[dict[str, Any]], bool], what: str) -> float:
    """Beside the streams."""
    return await asyncio.to_thread(fleet.cluster.until, holds, what)


async def until_health(fleet: Fleet, state: str) -> None:
    """/health says so with status 200; two routers hear of a loss one after the other."""
    async with httpx.AsyncClient(base_url=fleet.cluster.url, timeout=30.0) as client:
        async with asyncio.timeout(60.0):
            while True:
                answer = await client.get("/health")
                assert answer.status_code == 200
                if answer.json()["status"] == state:
                    return
                await asyncio.sleep(0.5)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    if reason := why_not():
        pytest.skip(reason)
    with cluster() as made:
        for name in ("head", "large", "cheap"):
            made.join(name, 1, {LABEL: name})
        with made.serving("config/two-pools.yaml", SETTINGS):
            running = Fleet(made)
            running.undisturbed, _ = asyncio.run(streamed(made.url))
            yield running


def test_tiers_land_where_the_labels_say(fleet: Fleet) -> None:
    for host in (fleet.cheap, fleet.large):
        assert fleet.worker(host.name) in host.pids()
    assert fleet.cluster.head is not None
    assert set(fleet.routers()) <= set(fleet.cluster.head.pids())
    assert len(fleet.routers()) == 2


def test_undisturbed_streams_say_the_same_in_all_modes(fleet: Fleet) -> None:
    streams = fleet.undisturbed
    assert all(s.error is None and s.finish == "length" for s in streams)
    assert [s.answer for s in streams[::2]] == [s.answer for s in streams[1::2]]


async def test_killed_cheap_worker(fleet: Fleet) -> None:
    async def kill() -> None:
        os.kill(fleet.worker("cheap"), signal.SIGKILL)
        lost_s = await until(fleet, is_degraded, "degraded")
        print(f"\ndegraded after {lost_s:.1f} s")

    await fleet.drill("kill -9 of the cheap worker", kill)


async def test_cheap_pool_behind_a_dead_link(fleet: Fleet) -> None:
    worker = fleet.worker("cheap")

    async def part() -> None:
        fleet.cheap.cut()
        try:
            lost_s = await until(fleet, is_degraded, "degraded")
            print(f"\ndegraded after {lost_s:.1f} s")
            await asyncio.sleep(max(PARTITION_S - lost_s, 0.0))
        finally:
            fleet.cheap.mend()

    await fleet.drill(f"no link to the cheap host for {PARTITION_S:g} s", part)
    assert fleet.worker("cheap") == worker, "it was there all the time"


async def test_killed_cheap_host(fleet: Fleet) -> None:
    async def kill() -> None:
        await asyncio.to_thread(fleet.cheap.kill)
        lost_s = await until(fleet, is_degraded, "degraded")
        await until_health(fleet, "degraded")
        print(f"\ndegraded after {lost_s:.1f} s")
        await asyncio.to_thread(fleet.cluster.join, "cheap", 1, {LABEL: "cheap"})

    await fleet.drill("kill -9 of all of the cheap host", kill)


async def test_killed_full_worker(fleet: Fleet) -> None:
    async def kill() -> None:
        os.kill(fleet.worker("large"), signal.SIGKILL)

    await fleet.drill("kill -9 of the full worker", kill)


async def test_killed_router(fleet: Fleet) -> None:
    async def kill() -> None:
        os.kill(fleet.routers()[0], signal.SIGKILL)

    await fleet.drill("kill -9 of one of two routers", kill)


async def test_without_a_full_worker_streams_end_with_a_clear_error(fleet: Fleet) -> None:
    url, late = fleet.cluster.url, Stream(fleet.undisturbed[0].request)

    async def kill() -> None:
        await asyncio.to_thread(fleet.large.kill)
        await until(fleet, is_without_full, "without full alone")
        await until_health(fleet, "loading")
        async with asyncio.timeout(60.0):  # the other router may not have heard yet
            while httpx.get(f"{url}/ready", timeout=30.0).status_code != 503:
                await asyncio.sleep(0.5)
        async with httpx.AsyncClient(base_url=url, timeout=900.0) as client:
            await late.read(client)

    streams, _ = await streamed(url, kill)
    for stream, whole in zip(streams, fleet.undisturbed, strict=True):
        assert stream.status == 200
        assert stream.error is not None
        assert (stream.error["type"], stream.error["code"]) == ("server_error", "unavailable")
        assert "".join(whole.pieces).startswith("".join(stream.pieces))
    assert late.status == 503, "nothing was sent, so it is a status"
    assert late.error is not None
    assert late.error["code"] == "unavailable"
    fleet.cluster.join("large", 1, {LABEL: "large"})
    fleet.cluster.until(is_whole, "whole again")
    again, _ = await streamed(url)
    assert [s.answer for s in again] == [s.answer for s in fleet.undisturbed]
