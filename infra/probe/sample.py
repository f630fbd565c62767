"""One look at a process and its GPUs. Values only; None where nobody could tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

UtilOf = Literal["gpu", "step loop"]


@dataclass(frozen=True, slots=True)
class CardSample:
    """A GPU, or one MIG instance of it, as NVML sees it.

    `util_frac`: share of the driver's last sample period in which a kernel ran;
    `memory_busy_frac`: in which device memory was read or written. Memory is the instance's where
    `gpu_instance` is set; power, limit, temperature and throttling are always the whole
    card's, and so may be other processes'. `throttle_reasons` is empty where nothing holds the
    clocks down. `missing`: a line for each field that is None though it was asked for.
    """

    uuid: str
    name: str | None = None
    util_frac: float | None = None
    memory_busy_frac: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    mig: bool | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostSample:
    """The process without its GPUs, over the time since the sample before.

    `step_busy_frac`: share of the time in which it was at a step; `process_cpus`: cores it kept
    busy (1.5 is one and a half); `machine_cpu_frac`: share of all cores' time that anybody used.
    """

    step_busy_frac: float | None = None
    process_cpus: float | None = None
    machine_cpu_frac: float | None = None


@dataclass(frozen=True, slots=True)
class ProbeSample:
    """What a process's sampler saw last.

    `source`: nvml where its cards answered, else host, and `note` says why. `util_mean_frac` is
    the exponentially weighted mean of `util_frac`.
    """

    source: Literal["nvml", "host"]
    note: str
    host: HostSample = HostSample()
    cards: tuple[CardSample, ...] = ()
    util_mean_frac: float | None = None

    @property
    def util_of(self) -> UtilOf | None:
        """What `util_frac` is the utilisation of; None where it is None."""
        if _mean(card.util_frac for card in self.cards) is not None:
            return "gpu"
        return None if self.host.step_busy_frac is None else "step loop"

    @property
    def util_frac(self) -> float | None:
        """The cards' mean utilisation; without one the busy share of the step loop."""
        if self.util_of == "gpu":
            return _mean(card.util_frac for card in self.cards)
        return self.host.step_busy_frac

    def describe(self) -> dict[str, Any]:
        """The sample for status pages."""
        return {
            "util_frac": self.util_frac,
            "util_mean_frac": self.util_mean_frac,
            "util_of": self.util_of,
            "source": self.source,
            "note": self.note,
            **asdict(self.host),
            "cards": [asdict(card) for card in self.cards],
        }


NOT_SAMPLED = ProbeSample("host", "nothing was sampled yet")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
