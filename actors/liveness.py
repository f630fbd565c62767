"""How long something may be silent before it is taken for lost: settings of the pools' and the
ingress's side. Values only, so that reading a config imports no engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Liveness:
    """How often a worker is asked and announced, how long it is listed without a new
    announcement, and for how long it may not answer before another one takes its place."""

    heartbeat_s: float = 2.0
    silence_s: float = 10.0
    dead_s: float = 60.0


@dataclass(frozen=True, slots=True)
class FailoverSettings:
    """A router that says nothing for `silence_s` is taken for lost. A request ends when none has
    said anything for `wait_s`, or when it has seen `max_lost` of them die: it may be the cause.
    Tries are `first_backoff_s` apart, then each time twice as long, up to `silence_s`."""

    silence_s: float = 10.0
    wait_s: float = 60.0
    max_lost: int = 3
    first_backoff_s: float = 0.2
