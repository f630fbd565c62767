"""Laws of the probe without a driver: what the host tells, and a sampler that harms nobody."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable

import psutil
import pytest

from infra.probe.host import BusyTime, CpuTimes, HostMeter, cpu_times
from infra.probe.sample import NOT_SAMPLED, CardSample, HostSample, ProbeSample
from infra.probe.sampler import ProbeSettings, Sampler


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class FakeCards:
    """NVML that answers with `util_frac`, or fails with `error`."""

    def __init__(self) -> None:
        self.util_frac: float | None = 0.5
        self.error: Exception | None = None
        self.opened = self.closed = 0

    def open(self) -> FakeCards:
        self.opened += 1
        return self

    def read(self) -> tuple[CardSample, ...]:
        if self.error is not None:
            raise self.error
        return (CardSample("GPU-0", util_frac=self.util_frac),)

    def close(self) -> None:
        self.closed += 1


def meter(
    clock: Clock, busy_s: Callable[[], float] = lambda: 0.0, cpu: Callable[[], CpuTimes] = cpu_times
) -> HostMeter:
    return HostMeter(busy_s, clock, cpu)


def test_busy_time_counts_what_runs_and_keeps_what_is_done():
    clock = Clock()
    busy = BusyTime(clock)
    assert busy.seconds() == 0.0
    with busy:
        clock.now_s += 3
        assert busy.seconds() == 3.0
    clock.now_s += 10
    assert busy.seconds() == 3.0
    with contextlib.suppress(ZeroDivisionError), busy:
        clock.now_s += 1
        1 / 0  # noqa: B018 - a step that fails
    clock.now_s += 10
    assert busy.seconds() == 4.0


def test_host_shares_are_of_the_time_since_the_reading_before():
    clock, busy, cpu = Clock(), [5.0], [CpuTimes(70.0, 100.0, 800.0)]
    host = meter(clock, lambda: busy[0], lambda: cpu[0])
    assert host.read() == HostSample(), "no time has passed"
    clock.now_s, busy[0], cpu[0] = 102.0, 5.5, CpuTimes(73.0, 104.0, 816.0)
    assert host.read() == HostSample(0.25, 1.5, 0.25)
    clock.now_s = 103.0
    assert host.read() == HostSample(0.0, 0.0, None), "the machine's clock has not ticked"


def test_host_shares_stay_shares_though_clocks_are_read_apart():
    clock, busy = Clock(), [0.0]
    host = meter(clock, lambda: busy[0], lambda: CpuTimes(0.0, 0.0, 0.0))
    clock.now_s, busy[0] = 101.0, 1.01
    assert host.read().step_busy_frac == 1.0


def test_host_that_hides_cpu_times_still_tells_the_step_loop():
    def hidden() -> CpuTimes:
        raise psutil.AccessDenied

    clock, busy = Clock(), [0.0]
    host = meter(clock, lambda: busy[0], hidden)
    clock.now_s, busy[0] = 102.0, 1.0
    assert host.read() == HostSample(0.5, None, None)


def test_operating_system_tells_cpu_times_that_grow_and_fit():
    before = cpu_times()
    while cpu_times().process_s == before.process_s:
        math.factorial(2000)
    after = cpu_times()
    assert after.process_s > before.process_s > 0
    assert after.machine_s >= before.machine_s > 0
    assert 0 < after.machine_busy_s < after.machine_s


def test_utilisation_is_the_cards_mean_and_without_one_the_step_loops():
    cards = tuple(CardSample(f"GPU-{n}", util_frac=u) for n, u in enumerate([0.2, None, 0.8]))
    seen = ProbeSample("nvml", "", HostSample(0.9), cards)
    assert (seen.util_frac, seen.util_of) == (0.5, "gpu")
    seen = ProbeSample("nvml", "", HostSample(0.9), cards[1:2])
    assert (seen.util_frac, seen.util_of) == (0.9, "step loop")
    assert (NOT_SAMPLED.util_frac, NOT_SAMPLED.util_of) == (None, None)


def test_mean_weighs_by_time_and_begins_anew_with_what_it_is_a_mean_of():
    clock, cards = Clock(), FakeCards()
    settings = ProbeSettings(interval_s=1.0, mean_s=10.0)
    sampler = Sampler(settings, meter(clock), cards.open, clock)
    assert sampler.sample().util_mean_frac == 0.5
    cards.util_frac, clock.now_s = 1.0, 110.0
    expected = 1.0 - 0.5 / math.e
    assert sampler.sample().util_mean_frac == pytest.approx(expected)
    assert sampler.sample().util_mean_frac == pytest.approx(expected), "no time has passed"
    cards.util_frac, clock.now_s = None, 111.0
    assert sampler.sample().util_mean_frac == 0.0
    cards.util_frac, clock.now_s = 0.7, 112.0
    assert sampler.sample().util_mean_frac == 0.7


@pytest.mark.parametrize(
    ("error", "words"), [(OSError("bad library"), "bad library"), (KeyError(), "KeyError")]
)
def test_whatever_fails_in_the_driver_is_a_note_and_is_let_go(error: Exception, words: str):
    clock, cards = Clock(), FakeCards()
    sampler = Sampler(ProbeSettings(), meter(clock), cards.open, clock)
    sampler.sample()
    cards.error = error
    seen = sampler.sample()
    assert (seen.source, seen.cards, cards.closed) == ("host", (), 1)
    assert seen.note == f"no NVML: {words}"
    assert sampler.sample() == seen
    assert cards.opened == 1, "not before the wait is over"
    cards.error, clock.now_s = None, clock.now_s + 1
    assert sampler.sample().source == "nvml"
    assert cards.opened == 2


def test_driver_that_cannot_be_let_go_costs_nothing():
    class Stuck(FakeCards):
        def close(self) -> None:
            raise OSError("stuck")

    clock, cards = Clock(), Stuck()
    sampler = Sampler(ProbeSettings(), meter(clock), cards.open, clock)
    cards.error = OSError("gone")
    assert sampler.sample().note == "no NVML: gone"
    sampler.stop()


def test_meter_that_fails_costs_only_its_own_figures():
    broken = iter([0.0])
    clock, cards = Clock(), FakeCards()
    sampler = Sampler(ProbeSettings(), meter(clock, lambda: next(broken)), cards.open, clock)
    seen = sampler.sample()
    assert (seen.source, seen.util_frac, seen.host) == ("nvml", 0.5, HostSample())


def test_process_without_cards_asks_no_driver_and_says_so():
    clock = Clock()
    sampler = Sampler(ProbeSettings(), meter(clock, lambda: (clock() - 100) / 2), None, clock)
    clock.now_s += 1
    seen = sampler.sample()
    assert (seen.source, seen.note) == ("host", "no NVML: the process computes on no GPU")
    assert (seen.util_frac, seen.util_of) == (0.5, "step loop")


def test_thread_samples_again_and_again_until_it_is_stopped():
    class Counting(FakeCards):
        enough = threading.Event()
        threads: set[str] = set()  # noqa: RUF012 - one instance

        def read(self) -> tuple[CardSample, ...]:
            self.threads.add(threading.current_thread().name)
            self.util_frac = min((self.util_frac or 0.0) + 0.1, 0.9)
            if self.util_frac >= 0.8:
                self.enough.set()
            return super().read()

    cards = Counting()
    sampler = Sampler(ProbeSettings(interval_s=0.001), meter(Clock()), cards.open)
    assert sampler.last == NOT_SAMPLED
    sampler.start()
    assert cards.enough.wait(60)
    sampler.stop()
    assert sampler.last.source == "nvml"
    assert (cards.opened, cards.closed, cards.threads) == (1, 1, {"probe"})
    assert all(thread.name != "probe" for thread in threading.enumerate())
