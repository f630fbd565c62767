"""Samples a process and its cards in a thread of its own, beside whatever the process does.

A driver that fails costs the samples their cards, never the caller anything: the error becomes
the sample's note, and NVML is opened anew after a wait that doubles.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from infra.probe.host import HostMeter
from infra.probe.sample import NOT_SAMPLED, CardSample, HostSample, ProbeSample


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """`interval_s` between samples; a sample weighs 1/e in the mean after `mean_s`; a driver
    that failed is tried again after `interval_s`, twice that, … at most `retry_s`."""

    interval_s: float = 1.0
    mean_s: float = 10.0
    retry_s: float = 60.0


class OpenCards(Protocol):
    """NVML once it is open; `infra.probe.nvml.Cards` in production."""

    def read(self) -> tuple[CardSample, ...]:
        """A sample of each card; raises where the driver is gone."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...


class Sampler:
    """Keeps `last`. `open_cards` opens NVML and may raise anything; None for a process without
    cards. `meter` reads the host."""

    def __init__(
        self,
        settings: ProbeSettings,
        meter: HostMeter,
        open_cards: Callable[[], OpenCards] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._meter = meter
        self._open_cards = open_cards
        self._clock = clock
        self._cards: OpenCards | None = None
        self._error = ""
        self._failures = 0
        self._retry_at = -math.inf
        self._mean_at = -math.inf
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.last = NOT_SAMPLED

    def start(self) -> None:
        """Sample from now on, until `stop`; the thread does not keep the process alive."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and let the driver go; `last` stays."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._close()

    def sample(self) -> ProbeSample:
        """Look once, keep it as `last` and return it. The thread's own step; never raises."""
        cards = self._read_cards()
        source = "host" if cards is None else "nvml"
        sample = ProbeSample(source, self._note(cards), self._read_host(), cards or ())
        self.last = replace(sample, util_mean_frac=self._mean(sample))
        return self.last

    def _run(self) -> None:
        while not self._stop.wait(self._settings.interval_s):
            self.sample()

    def _note(self, cards: tuple[CardSample, ...] | None) -> str:
        if self._open_cards is None:
            return "no NVML: the process computes on no GPU"
        if cards is None:
            return f"no NVML: {self._error}"
        if any(card.util_frac is None for card in cards):
            return "NVML without utilisation; the cards' `missing` say why"
        return ""

    def _read_host(self) -> HostSample:
        try:
            return self._meter.read()
        except Exception:
            return HostSample()

    def _read_cards(self) -> tuple[CardSample, ...] | None:
        if self._open_cards is None or self._clock() < self._retry_at:
            return None
        try:
            if self._cards is None:
                self._cards = self._open_cards()
            cards = self._cards.read()
        except Exception as error:
            self._failed(error)
            return None
        self._error, self._failures = "", 0
        return cards

    def _failed(self, error: Exception) -> None:
        self._close()
        wait_s = min(self._settings.interval_s * 2.0**self._failures, self._settings.retry_s)
        self._failures += 1
        self._retry_at = self._clock() + wait_s
        self._error = str(error) or type(error).__name__

    def _close(self) -> None:
        cards, self._cards = self._cards, None
        if cards is not None:
            try:
                cards.close()
            except Exception as error:
                self._error = str(error)

    def _mean(self, sample: ProbeSample) -> float | None:
        """Weighted by the time since the last sample. It begins anew where it would mix what
        a GPU says with what the step loop says."""
        now, before = self._clock(), self.last
        elapsed_s, self._mean_at = now - self._mean_at, now
        if sample.util_frac is None or before.util_mean_frac is None:
            return sample.util_frac
        if sample.util_of != before.util_of:
            return sample.util_frac
        weight = 1.0 - math.exp(-elapsed_s / self._settings.mean_s)
        return before.util_mean_frac + weight * (sample.util_frac - before.util_mean_frac)
