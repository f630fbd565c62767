"""The part of the config that says when something that is silent is taken for lost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from actors.liveness import FailoverSettings, Liveness
from cluster.config_lossy import Section

Seconds = Annotated[float, Field(gt=0)]


class LivenessConfig(Section):
    """Workers are announced and routers say something every `heartbeat_s`; one that is silent
    for `silence_s` gets no more work, and its sessions go on elsewhere. A worker that does not
    answer its pool for `dead_s` is ended and started anew."""

    heartbeat_s: Seconds = 2.0
    silence_s: Seconds = 10.0
    dead_s: Seconds = 60.0

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
