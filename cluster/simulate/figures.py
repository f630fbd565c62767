"""What a fleet file says for a simulation, as pydantic checks it: sizes and traffic."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cluster.config import Positive
from cluster.config_lossy import Section

Amount = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1e6)]
Tokens = Annotated[float, Field(gt=0, le=1e6)]
Requests = Annotated[int, Field(ge=1, le=10_000_000)]
MOST_WORKERS = 100_000
Count = Annotated[int, Field(ge=0, le=MOST_WORKERS)]
Share = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


class PoolSize(Section):
    """`workers` at the beginning; with `autoscale` between `min_workers` and `max_workers`.
    `slots`: sessions of a worker's step, and of the large pool what it takes at once;
    `token_budget`: rows of a step; `memory_frac`: of the cards, for weights, keys and values."""

    workers: Count
    min_workers: Count | None = None
    max_workers: Count | None = None
    slots: Positive = 64
    token_budget: Positive = 2048
    memory_frac: Share = 0.9

    @model_validator(mode="after")
    def _in_order(self) -> PoolSize:
        low, high = self.bounds
        if not low <= self.workers <= high:
            raise ValueError(f"workers must be from min_workers ({low}) to max_workers ({high})")
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """Least and most workers."""
        low = self.workers if self.min_workers is None else self.min_workers
        high = self.workers if self.max_workers is None else self.max_workers
        return low, high


class LargeSize(PoolSize):
    """The large pool is never empty."""

    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)]
    min_workers: Positive | None = None


class TrafficFigures(Section):
    """Requests and their lengths; see `cluster.simulate.setup.Traffic`."""

    requests: Requests = 1000
    per_second: Rate
    prompt_tokens: Tokens = 300
    output_tokens: Tokens = 100
    spread: Annotated[float, Field(ge=0, le=2)] = 0.6
    swing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    period_s: Amount = 600.0


class AutoscaleFigures(Section):
    """See `policies.autoscale`. `start_s`: until a new worker is ready."""

    target_frac: Share = 0.7
    max_queue_s: Seconds = 1.0
    up_s: Seconds = 5.0
    down_s: Seconds = 120.0
    start_s: Seconds = 60.0
    max_ratio: Amount = 4.0
    wake_frac: Share = 0.5


class SimulateFigures(Section):
    """All of it."""

    traffic: TrafficFigures
    cheap: PoolSize
    large: LargeSize
    autoscale: AutoscaleFigures | None = None
    seed: int = 0
