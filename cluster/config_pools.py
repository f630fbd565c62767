"""The pools in the config: what hardware each is on, and what its workers host."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
    model_validator,
)

from cluster.config_lossy import Section
from cluster.config_scale import ScaleConfig, Workers
from policies.autoscale import ScaleSettings
from policies.placing import Demand
from policies.vocabulary import Tier

ACCELERATOR_LABEL = "ray.io/accelerator-type"
"""Ray puts it on every node whose first GPU it knows."""

Positive = Annotated[int, Field(strict=True, ge=1)]
LEAST = 0.0001
"""Ray counts resources in steps of this."""
Amount = Annotated[float, Field(ge=LEAST)]
_DEVICE = r"cpu|cuda(:\d+)?"


def _device(value: str) -> str:
    if not re.fullmatch(_DEVICE, value):
        raise ValueError("must be cpu, cuda, or cuda:N for the card with number N")
    return value


Device = Annotated[
    str, AfterValidator(_device), WithJsonSchema({"type": "string", "pattern": f"^({_DEVICE})$"})
]


def _cpus(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError:  # which names both kinds by words of pydantic's own
        raise ValueError(f"must be a number of at least {LEAST}, or auto") from None


Cpus = Annotated[Amount | Literal["auto"], WrapValidator(_cpus)]
Gpus = Annotated[float, Field(ge=0)]
Price = Annotated[float, Field(ge=0)]


class HardwareConfig(Section):
    """Where a worker may run."""

    accelerator: str | None = None
    """One of Ray's accelerator types, as L4 or H100: short for a label."""
    label_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the node, with Ray's `!x` and `in(x,y)`."""

    @property
    def selector(self) -> dict[str, str]:
        """All labels that the node has to have."""
        if self.accelerator is None:
            return self.label_selector
        return self.label_selector | {ACCELERATOR_LABEL: self.accelerator}

    @field_validator("accelerator")
    @classmethod
    def _known_to_ray(cls, accelerator: str | None) -> str | None:
        if accelerator is not None and accelerator not in (known := _accelerators()):
            raise ValueError(
                f"Ray knows no {accelerator}, only {', '.join(known)}; for another card give"
                f" label_selector {{{ACCELERATOR_LABEL}: …}}"
            )
        return accelerator

    @field_validator("label_selector")
    @classmethod
    def _as_ray_reads_them(cls, labels: dict[str, str]) -> dict[str, str]:
        from ray._private.label_utils import validate_label_selector  # slow, and rarely needed

        if labels and (fault := validate_label_selector(labels)):
            raise ValueError(fault)
        return labels

    @model_validator(mode="after")
    def _one_word_for_the_accelerator(self) -> HardwareConfig:
        if self.accelerator is not None and ACCELERATOR_LABEL in self.label_selector:
            raise ValueError(f"give accelerator or the label {ACCELERATOR_LABEL}, not both")
        return self


class FallbackConfig(HardwareConfig):
    """Hardware that will do where a pool's own cannot be had. It names its labels anew; other
    keys that it leaves out are the pool's, but `device: cpu` takes no GPU."""

    device: Device | None = None
    """Null: the pool's; `cpu` takes no GPU."""
    num_cpus: Cpus | None = None
    """Null: the pool's."""
    num_gpus: Gpus | None = None
    """Null: the pool's."""
    resources: dict[str, Amount] | None = None
    """Null: the pool's."""
    memory_frac: Annotated[float, Field(gt=0, le=1)] | None = None
    """Null: the pool's."""
    price_per_hour: Price | None = None
    """Null: the pool's."""

    def over(self, pool: PoolConfig) -> dict[str, Any]:
        """The keys of the pool as they are on this hardware."""
        own = self.model_dump(exclude_none=True)
        kept = {"accelerator": self.accelerator, "label_selector": self.label_selector}
        if self.device == "cpu":
            kept |= {"num_gpus": 0, "memory_frac": None}
        return pool.model_dump(exclude={"fallback"}) | kept | own


class PoolConfig(HardwareConfig):
    """One kind of hardware and the tiers it hosts; a replica is one worker."""

    tiers: Annotated[tuple[Tier, ...], Field(min_length=1)]
    """Which tiers its workers host: draft, slim, full."""
    replicas: Workers = 1
    """Workers; with `autoscale` those at the beginning."""
    autoscale: ScaleConfig | None = None
    """Bounds where the load sets their number; null: always `replicas`."""
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """How long a worker that is to end waits at most for its sessions to move."""
    tp: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1
    """Processes that a worker's model is split over, each with the CPUs, GPUs, threads and
    resources given here."""
    one_node: bool = False
    """They must share a machine, or else they share one where one has room for them (sums
    of every layer travel between them)."""
    device: Device = "cpu"
    """What its workers compute on: cpu, cuda or cuda:N."""
    num_cpus: Cpus = "auto"
    """Of a worker. `auto`: an equal share of this machine's cores (on a cluster give a
    number)."""
    num_gpus: Gpus = 0
    """Of a worker; below 1 several share a card."""
    memory_frac: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the card's memory that each of them may take, by default num_gpus
    (PyTorch's own; a CUDA context of some hundred MB each comes on top)."""
    resources: dict[str, Amount] = Field(default_factory=dict)
    """Ray's custom resources that a worker takes."""
    fallback: tuple[FallbackConfig, ...] = ()
    """Other hardware, in the order in which to try it."""
    threads: Positive | None = None
    """Compute threads of a worker; null: its CPUs."""
    cores: Literal["own", "passive", "lease"] = "passive"
    """`own`, or shared with other workers: `passive` (OpenMP threads sleep instead of
    spinning) or `lease` (workers compute in turn)."""
    niceness: Annotated[int, Field(strict=True, ge=0, le=19)] = 4
    """Added to the process's where cores are shared."""
    slots: Annotated[int, Field(strict=True, ge=1, le=65_536)] = 16
    """Sessions whose keys and values are held."""
    token_budget: Annotated[int, Field(strict=True, ge=4)] = 256
    """Rows of one forward."""
    probe_s: Annotated[float, Field(ge=0.05, le=3600)] = 1.0
    """Seconds between two looks at how busy a worker and its device are."""
    price_per_hour: Price | None = None
    """Of one worker, all its ranks and cards together, in USD; for metrics alone."""

    def scale(self) -> ScaleSettings:
        """How many workers it may have: always the same where it does not scale."""
        if self.autoscale is None:
            return ScaleSettings(self.replicas, self.replicas)
        return self.autoscale.settings()

    @property
    def processes(self) -> int:
        """Of all the workers that it may have at once."""
        return self.scale().max_workers * self.tp

    @property
    def memory_share(self) -> float | None:
        """Of its card that a process may take; None where the card is its own."""
        share = self.memory_frac or self.num_gpus
        return share if self.device != "cpu" and share < 1 else None

    @property
    def ways(self) -> tuple[PoolConfig, ...]:
        """The pool on its own hardware, then on each other; none of them has a fallback."""
        own = self.model_copy(update={"fallback": ()})
        return (own, *(PoolConfig.model_validate(other.over(own)) for other in self.fallback))

    @property
    def demand(self) -> Demand:
        """What one worker takes, on its own hardware; `num_cpus` is a number by now."""
        assert not isinstance(self.num_cpus, str)
        amounts = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.resources}
        each = {kind: amount for kind, amount in amounts.items() if amount}
        return Demand(each, self.selector, self.tp, self.one_node)

    @field_validator("tiers")
    @classmethod
    def _distinct(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        if len(set(tiers)) != len(tiers):
            raise ValueError("a tier is named twice")
        return tiers

    @field_validator("resources")
    @classmethod
    def _of_their_own_kind(cls, resources: dict[str, float]) -> dict[str, float]:
        if {"CPU", "GPU"} & resources.keys():
            raise ValueError("CPU and GPU are num_cpus and num_gpus")
        if own := {"memory", "object_store_memory"} & resources.keys():
            raise ValueError(f"{min(own)} is Ray's own; only custom resources can be asked for")
        if not all(name.strip() for name in resources):
            raise ValueError("a resource needs a name, as ray start's --resources gave it")
        return resources

    @model_validator(mode="after")
    def _gpus_make_sense(self) -> PoolConfig:
        if self.device != "cpu" and not self.num_gpus:
            raise ValueError(f"device {self.device} needs num_gpus above 0, or Ray hides the GPUs")
        if self.accelerator and not self.num_gpus:
            raise ValueError(f"accelerator {self.accelerator} needs num_gpus above 0")
        if 0 < self.num_gpus < LEAST:
            raise ValueError(f"num_gpus {self.num_gpus:g} must be 0 or at least {LEAST}")
        if self.num_gpus > 1 and self.num_gpus % 1:
            raise ValueError(f"num_gpus {self.num_gpus:g} must be a whole number or below 1")
        if self.tp > 1 and self.device != "cpu" and self.num_gpus < 1:
            raise ValueError(f"tp {self.tp} needs num_gpus of at least 1: a card takes one rank")
        if self.memory_frac is not None and self.device == "cpu":
            raise ValueError("memory_frac is for device cuda")
        sharing = int(1 / self.num_gpus + 1e-6) if 0 < self.num_gpus < 1 else 1
        if self.memory_frac is not None and self.memory_frac * sharing > 1 + 1e-6:
            raise ValueError(
                f"memory_frac {self.memory_frac:g} must be at most {1 / sharing:g}, since"
                f" num_gpus {self.num_gpus:g} lets {sharing} workers share a card"
            )
        return self

    @model_validator(mode="after")
    def _ranks_host_full_alone(self) -> PoolConfig:
        if self.tp > 1 and self.tiers != (Tier.FULL,):
            raise ValueError(
                f"tp {self.tp} is for a pool that hosts 'full' alone; draft and slim go into"
                " another pool"
            )
        return self

    @model_validator(mode="after")
    def _autoscale_fits(self) -> PoolConfig:
        scale = self.autoscale
        if scale is None:
            return self
        if not scale.min and Tier.FULL in self.tiers:
            raise ValueError("autoscale.min 0 is for pools that do not host 'full'")
        if not scale.min <= self.replicas <= scale.max:
            raise ValueError(
                f"replicas {self.replicas} must be from autoscale.min {scale.min} to"
                f" autoscale.max {scale.max}"
            )
        return self

    @model_validator(mode="after")
    def _fallbacks_are_possible(self) -> PoolConfig:
        for number, other in enumerate(self.fallback):
            try:
                PoolConfig.model_validate(other.over(self))
            except ValidationError as error:
                said = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
                raise ValueError(f"fallback.{number}: {said}") from None
        return self


def _accelerators() -> list[str]:
    """Ray's names of accelerator types."""
    from ray.util.accelerators import accelerators  # slow, and rarely needed

    return sorted({v for k, v in vars(accelerators).items() if k[0] != "_" and isinstance(v, str)})
