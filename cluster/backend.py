"""The ingress's way to the routers over Serve's handles: answers, health, versions, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ray.exceptions import ObjectLostError, RayActorError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from actors.ingress.failover import Failover, RouterLost
from actors.liveness import FailoverSettings
from actors.messages import GenerateRequest, Output
from cluster.metrics import relay
from cluster.placement import reason_of
from cluster.pools_status import pools_status
from policies.vocabulary import Commit

_LOST = (RayActorError, ObjectLostError, RayServeException)
"""What a call to a replica raises that is dead, dying, out of reach or not there."""
_GLANCE_S = 0.5
"""So long /health waits for a router: probes of liveness give up after a second."""


class RouterBackend:
    """The ingress's way to the routers."""

    def __init__(
        self,
        router: DeploymentHandle,
        facts: dict[str, Any],
        replicas: dict[str, int],
        settings: FailoverSettings,
    ) -> None:
        self._replicas = replicas
        self._generate = router.options(method_name="generate", stream=True)
        self._status = router.options(method_name="status")
        self._facts = facts
        self._silence_s = settings.silence_s
        self._failover = Failover(self._ask, settings)

    def generate(self, request: GenerateRequest) -> AsyncGenerator[tuple[int, Commit], None]:
        """See Failover."""
        return self._failover.generate(request)

    async def _ask(self, request: GenerateRequest) -> AsyncGenerator[list[Output], None]:
        response: Any = self._generate.remote(request)
        try:
            async for outputs in response:
                yield outputs
        except _LOST as error:
            raise RouterLost(reason_of(error)) from error
        finally:
            response.cancel()

    async def health(self) -> dict[str, Any]:
        """The ingress answers, so it is alive; of the fleet what a router says at once."""
        status = await self._router_status(min(_GLANCE_S, self._silence_s))
        if "why" in status:
            return {"status": "unknown", "tiers": {}, "why": status["why"]}
        state, tiers = self._state(status)
        return {"status": state, "tiers": tiers}

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready with a full worker. `pools` says which workers are not there, and why."""
        status = await self._router_status(self._silence_s)
        state, tiers = self._state(status)
        pools = pools_status(self._replicas, status)
        return state != "loading", status | {"status": state, "tiers": tiers, "pools": pools}

    def _state(self, status: Mapping[str, Any]) -> tuple[str, dict[str, bool]]:
        """`loading` without full, `degraded` without another tier that may not sleep, else `ok`;
        and which tiers are there."""
        here = {tier for worker in status["workers"] for tier in worker["tiers"]}
        tiers = {tier: tier in here for tier in self._facts["tiers"]}
        missed = [t for t in tiers if not tiers[t] and t not in self._facts["may_sleep"]]
        state = "loading" if not tiers.get("full") else "degraded" if missed else "ok"
        return state, tiers

    async def version(self) -> dict[str, Any]:
        """Versions, model, and whether each full worker's machine keeps row invariance."""
        workers = (await self._router_status(self._silence_s))["workers"]
        kept = [w["row_invariant"] for w in workers if "full" in w["tiers"]]
        return {**self._facts, "row_invariant": all(kept) if kept else None}

    async def metrics(self) -> str:
        """See `cluster.metrics.relay`."""
        return await relay.page()

    async def _router_status(self, patience_s: float) -> dict[str, Any]:
        """Of one router; of none where none answers in time."""
        try:
            async with asyncio.timeout(patience_s):
                return await self._status.remote()
        except (*_LOST, TimeoutError):
            return {"workers": [], "waiting": [], "why": "no router answers"}
