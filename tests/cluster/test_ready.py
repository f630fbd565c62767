"""Laws of readiness: what /ready says of pools, and whom `serve` waits for at the start."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from actors.liveness import FailoverSettings
from cluster import waiting
from cluster.backend import RouterBackend
from cluster.console.start import PlainTeller
from cluster.errors import ConfigError

REPLICAS = {"cheap": 1, "large": 1}
LACKS = {"worker_id": "c", "pool": "cheap", "placed": False, "why": "no node has L4"}
LOADS = {"worker_id": "c", "pool": "cheap", "placed": True, "why": "loads"}
FULL = {"pool": "large", "tiers": ["full"]}
DRAFT = {"pool": "cheap", "tiers": ["draft"]}


class Handle:
    """A router deployment's handle, whose replica has this status."""

    def __init__(self, **status: Any) -> None:
        self._status = status

    def options(self, **options: Any) -> Any:
        async def remote() -> dict[str, Any]:
            return self._status

        return SimpleNamespace(remote=remote)


def backend(
    *workers: dict[str, Any],
    waiting: tuple[dict[str, Any], ...] = (),
    may_sleep: tuple[str, ...] = (),
) -> RouterBackend:
    seen = {w["pool"]: {"price": 1.5} for w in workers}
    handle: Any = Handle(workers=list(workers), waiting=list(waiting), pools=seen)
    facts = {"tiers": ["draft", "full"], "may_sleep": may_sleep}
    return RouterBackend(handle, facts, REPLICAS, FailoverSettings())


async def test_server_without_a_pool_is_degraded_and_says_why():
    ready, status = await backend(FULL, waiting=(LACKS,)).ready()
    assert (ready, status["status"]) == (True, "degraded")
    cheap, large = status["pools"]
    assert (cheap["running"], cheap["missing"][0]["why"]) == (0, "no node has L4")
    assert (large["running"], large["missing"]) == (1, [])
    assert large["price"] == 1.5, "what the router has seen of it"
    assert (await backend(FULL, DRAFT).ready())[1]["status"] == "ok"
    assert (await backend(DRAFT, waiting=()).ready())[0] is False


async def test_tier_that_may_sleep_is_not_missed():
    ready, status = await backend(FULL, may_sleep=("draft",)).ready()
    assert (ready, status["status"]) == (True, "ok")
    assert status["tiers"] == {"draft": False, "full": True}
    assert (await backend(DRAFT, may_sleep=("draft",)).ready())[0] is False


@pytest.mark.parametrize(
    ("workers", "state", "tiers"),
    [
        ((FULL, DRAFT), "ok", {"draft": True, "full": True}),
        ((FULL,), "degraded", {"draft": False, "full": True}),
        ((DRAFT,), "loading", {"draft": True, "full": False}),
    ],
)
async def test_health_and_ready_tell_the_same_state_and_tiers(
    workers: tuple[dict[str, Any], ...], state: str, tiers: dict[str, bool]
):
    assert await backend(*workers).health() == {"status": state, "tiers": tiers}
    told = (await backend(*workers).ready())[1]
    assert (told["status"], told["tiers"]) == (state, tiers)


class Silent:
    """A router deployment's handle that no replica answers."""

    def options(self, **options: Any) -> Any:
        async def remote() -> dict[str, Any]:
            await asyncio.sleep(3600)
            raise AssertionError("nobody waits so long")

        return SimpleNamespace(remote=remote)


async def test_server_whose_routers_are_silent_is_not_ready_and_says_so():
    handle: Any = Silent()
    facts = {"tiers": ["full"], "may_sleep": ()}
    silent = RouterBackend(handle, facts, {"all": 1}, FailoverSettings(silence_s=0.01))
    ready, status = await silent.ready()
    assert (ready, status["status"], status["why"]) == (False, "loading", "no router answers")


async def test_health_waits_for_no_silent_router_as_long_as_a_probe_would():
    handle: Any = Silent()
    facts = {"tiers": ["full"], "may_sleep": ()}
    async with asyncio.timeout(5.0):  # half of `silence_s`
        told = await RouterBackend(handle, facts, {"all": 1}, FailoverSettings()).health()
    assert told == {"status": "unknown", "tiers": {}, "why": "no router answers"}


class Started:
    """A server whose /ready moves on to the next status with each second that passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, statuses: list[dict[str, Any]]) -> None:
        self.now_s = 0.0
        self._statuses = statuses
        monkeypatch.setattr(waiting.httpx, "get", self._get)
        clock = SimpleNamespace(monotonic=lambda: self.now_s, sleep=self._sleep)
        monkeypatch.setattr(waiting, "time", clock)

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def _get(self, url: str, timeout: float) -> httpx.Response:
        status = self._statuses[min(int(self.now_s), len(self._statuses) - 1)]
        return httpx.Response(200, json=status)


async def said(*workers: dict[str, Any], waiting: tuple[dict[str, Any], ...] = ()) -> dict:
    return (await backend(*workers, waiting=waiting).ready())[1]


async def test_start_ends_as_soon_as_all_tiers_are_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    loading = await said(waiting=(LOADS,))
    full = await said(FULL, waiting=(LOADS,))
    here = Started(monkeypatch, [loading, full, await said(FULL, DRAFT)])
    waiting.wait_ready("http://here", PlainTeller())
    assert here.now_s == 2.0
    assert capsys.readouterr().out.splitlines() == [
        "viaserve: waiting for workers to load: draft, full",
        "viaserve: waiting for workers to load: draft",
    ]


async def test_start_goes_on_without_workers_that_find_no_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    loading = await said(waiting=(LACKS,))
    here = Started(monkeypatch, [loading] * 30 + [await said(FULL, waiting=(LACKS,))])
    waiting.wait_ready("http://here", PlainTeller())
    assert here.now_s == 30.0 + waiting.STUCK_S
    assert capsys.readouterr().out.splitlines() == [
        "viaserve: pool cheap: 0 of 1 workers; no node has L4",
        "viaserve: waiting for workers to load: draft, full",
        "viaserve: waiting for workers to load: draft",
    ]


async def test_a_worker_that_loads_is_waited_for_however_long_another_has_no_place(
    monkeypatch: pytest.MonkeyPatch,
):
    both = await said(FULL, waiting=(LACKS, LOADS | {"worker_id": "d"}))
    here = Started(monkeypatch, [both] * 300 + [await said(FULL, DRAFT)])
    waiting.wait_ready("http://here", PlainTeller())
    assert here.now_s == 300.0


async def test_start_without_full_is_given_up_and_one_without_a_draft_is_not(
    monkeypatch: pytest.MonkeyPatch,
):
    Started(monkeypatch, [await said(DRAFT)])
    with pytest.raises(ConfigError, match="not ready within"):
        waiting.wait_ready("http://here", PlainTeller())
    here = Started(monkeypatch, [await said(FULL, waiting=(LOADS,))])
    waiting.wait_ready("http://here", PlainTeller())
    assert here.now_s >= waiting.READY_TIMEOUT_S
