"""The part of the config that says when something that is silent is taken for lost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from actors.liveness import FailoverSettings, Liveness
from cluster.config_lossy import Section

Seconds = Annotated[float, Field(gt=0)]


class LivenessConfig(Section):
    """After how many silent seconds a worker or a router is taken for lost."""

    heartbeat_s: Seconds = 2.0
    """Workers are announced, and routers say something, so often."""
    silence_s: Seconds = 10.0
    """One that is silent so long gets no more work, and its sessions go on elsewhere; at
    least 2 heartbeats."""
    dead_s: Seconds = 60.0
    """A worker that does not answer its pool for so long is ended and started anew."""

    @model_validator(mode="after")
    def _in_order(self) -> LivenessConfig:
        if not 2 * self.heartbeat_s <= self.silence_s <= self.dead_s:
            raise ValueError("silence_s must be at least 2 heartbeat_s, and dead_s no shorter")
        return self

    def pool(self) -> Liveness:
        """The same as pools know it."""
        return Liveness(self.heartbeat_s, self.silence_s, self.dead_s)

    def failover(self, wait_s: float) -> FailoverSettings:
        """The same as the ingress knows it; `wait_s`: how long it waits for a router."""
        return FailoverSettings(silence_s=self.silence_s, wait_s=wait_s)
