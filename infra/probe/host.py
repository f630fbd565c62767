"""What a process can say of itself without a GPU: CPU time, and time at work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import psutil

from infra.probe.sample import HostSample


class BusyTime:
    """Seconds of work so far, the running piece included; noted by one thread, read by any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Seconds done, and since when a piece runs. One tuple, so that a reader sees both or
        # neither of a change.
        self._state: tuple[float, float | None] = (0.0, None)

    def __enter__(self) -> None:
        self._state = (self._state[0], self._clock())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        done_s, since = self._state
        assert since is not None
        self._state = (done_s + self._clock() - since, None)

    def seconds(self) -> float:
        """All of it."""
        done_s, since = self._state
        return done_s if since is None else done_s + self._clock() - since


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds since some moment: of CPU that this process took, and of all cores together, used
    by anybody and in all."""

    process_s: float
    machine_busy_s: float
    machine_s: float


def cpu_times() -> CpuTimes:
    """From the operating system. psutil.Error or OSError where it does not tell."""
    own = psutil.Process().cpu_times()
    times = psutil.cpu_times()
    # Linux counts guests' time in user and nice as well.
    total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    return CpuTimes(own.user + own.system, total_s - idle_s, total_s)


class HostMeter:
    """Turns running totals into shares of the time since the reading before."""

    def __init__(
        self,
        busy_s: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], CpuTimes] = cpu_times,
    ) -> None:
        self._busy_s = busy_s
        self._clock = clock
        self._cpu = cpu
        self._before = self._totals()

    def read(self) -> HostSample:
        """Shares since the last call; the first time since it was made."""
        then, busy_before_s, cpu_before = self._before
        self._before = now, busy_s, cpu = self._totals()
        elapsed_s = now - then
        if elapsed_s <= 0:
            return HostSample()
        step_frac = _frac(busy_s - busy_before_s, elapsed_s)
        if cpu is None or cpu_before is None:
            return HostSample(step_frac)
        machine_s = cpu.machine_s - cpu_before.machine_s
        return HostSample(
            step_busy_frac=step_frac,
            process_cpus=max(cpu.process_s - cpu_before.process_s, 0.0) / elapsed_s,
            machine_cpu_frac=_frac(cpu.machine_busy_s - cpu_before.machine_busy_s, machine_s)
            if machine_s > 0
            else None,
        )

    def _totals(self) -> tuple[float, float, CpuTimes | None]:
        try:
            cpu = self._cpu()
        except (psutil.Error, OSError):
            cpu = None
        return self._clock(), self._busy_s(), cpu


def _frac(part: float, whole: float) -> float:
    """Clocks are read one after the other, so that a share may come out a little past its end."""
    return min(max(part / whole, 0.0), 1.0)
