"""The pools in the config: what hardware each is on, and what its workers host."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from cluster.config_lossy import Section
from policies.vocabulary import Tier

Positive = Annotated[int, Field(ge=1)]


class PoolConfig(Section):
    """One kind of hardware and the tiers it hosts; a replica is one worker.

    `num_cpus` "auto": an equal share of this machine's cores (on a cluster give a number).
    `threads`: compute threads of a worker, by default its CPUs. `cores`: "own", or shared with
    other workers: "passive" (OpenMP threads sleep instead of spinning) or "lease" (workers
    compute in turn). `niceness` is added to the process's where cores are shared.
    `slots`: sessions whose keys and values are held; `token_budget`: rows of one forward.
    `probe_s`: seconds between two looks at how busy a worker and its device are.
    `tp`: processes that a worker's model is split over, each with the CPUs, GPUs, threads and
    resources given here; `one_node`: they must share a machine, or else they share one where
    one has room for them (sums of every layer travel between them).
    """

    tiers: Annotated[tuple[Tier, ...], Field(min_length=1)]
    replicas: Positive = 1
    tp: Positive = 1
    one_node: bool = False
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    num_cpus: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    num_gpus: Annotated[float, Field(ge=0)] = 0
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    label_selector: dict[str, str] = Field(default_factory=dict)
    threads: Positive | None = None
    cores: Literal["own", "passive", "lease"] = "passive"
    niceness: Annotated[int, Field(ge=0, le=19)] = 4
    slots: Positive = 16
    token_budget: Annotated[int, Field(ge=4)] = 256
    probe_s: Annotated[float, Field(ge=0.05, le=3600)] = 1.0

    @field_validator("tiers")
    @classmethod
    def _distinct(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        if len(set(tiers)) != len(tiers):
            raise ValueError("a tier is named twice")
        return tiers

    @model_validator(mode="after")
    def _cuda_needs_gpus(self) -> PoolConfig:
        if self.device != "cpu" and not self.num_gpus:
            raise ValueError(f"device {self.device} needs num_gpus above 0, or Ray hides the GPUs")
        return self

    @model_validator(mode="after")
    def _ranks_host_full_alone(self) -> PoolConfig:
        if self.tp > 1 and self.tiers != (Tier.FULL,):
            raise ValueError(
                f"tp {self.tp} is for a pool that hosts 'full' alone; draft and slim go into"
                " another pool"
            )
        return self

    @property
    def processes(self) -> int:
        """Of all its workers."""
        return self.replicas * self.tp
