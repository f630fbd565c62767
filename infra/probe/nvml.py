"""The cards of a process through NVML. It knows the driver's answers, not when to ask."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from infra.probe.driver import GONE, UNSUPPORTED, nvml
from infra.probe.sample import CardSample
from infra.probe.visible import find, parent

T = TypeVar("T")

# nvml.h, nvmlClocksEventReason*. GpuIdle (bit 0) is left out: an idle card is not held down.
_THROTTLE_WORDS = {
    0x002: "application clocks",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "hardware power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability",
}
_IDLE = 0x001


@dataclass(frozen=True, slots=True)
class _Card:
    """A handle as `find` gives it; `whole` is the card of a MIG instance, else the same."""

    handle: Any
    whole: Any
    uuid: str


class Cards:
    """NVML, opened for some cards of this process. Not for several threads at once."""

    def __init__(self, visible: str | None, ordinals: Sequence[int]) -> None:
        """`visible`: CUDA_VISIBLE_DEVICES, `ordinals`: CUDA's numbers under it. NVMLError or
        NoSuchCard where that cannot be had."""
        nvml.nvmlInit()
        try:
            self._cards = [_card(find(visible, ordinal)) for ordinal in ordinals]
        except BaseException:
            self.close()
            raise

    def read(self) -> tuple[CardSample, ...]:
        """A sample of each card, in the order of `ordinals`; a field that the card does not
        tell is None and named in `missing`. NVMLError where the driver or a card is gone."""
        return tuple(_read(card) for card in self._cards)

    def close(self) -> None:
        """Let the driver go."""
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _card(handle: Any) -> _Card:
    whole = parent(handle)
    return _Card(handle, handle if whole is None else whole, nvml.nvmlDeviceGetUUID(handle))


class _Reader:
    """Asks for one field after the other and keeps why one is missing."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.answered = False
        self.last_error: Exception | None = None

    def ask(self, fields: str, *ways: Callable[[], T]) -> T | None:
        """The answer of the first way that this driver knows."""
        for way in ways:
            try:
                answer = way()
            except nvml.NVMLError as error:
                if error.value in GONE:
                    raise
                self.last_error = error
                if error.value != nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
                    break
            else:
                self.answered = True
                return answer
        self.missing.append(f"{fields}: {self.last_error}")
        return None


def _read(card: _Card) -> CardSample:
    handle, whole, reader = card.handle, card.whole, _Reader()
    ask = reader.ask
    util = ask("util_frac, memory_busy_frac", lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    memory = ask("memory_*_bytes", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    power_mw = ask("power_w", lambda: nvml.nvmlDeviceGetPowerUsage(whole))
    limit_mw = ask("power_limit_w", lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(whole))
    # The second way of these two is an older driver's.
    temperature_c = ask(
        "temperature_c",
        lambda: nvml.nvmlDeviceGetTemperatureV(whole, nvml.NVML_TEMPERATURE_GPU),
        lambda: nvml.nvmlDeviceGetTemperature(whole, nvml.NVML_TEMPERATURE_GPU),
    )
    reasons = ask(
        "throttle_reasons",
        lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(whole),
        lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(whole),
    )
    if not reader.answered:
        assert reader.last_error is not None
        raise reader.last_error
    gpu_instance = compute_instance = None
    if whole is not handle:
        gpu_instance = ask("gpu_instance", lambda: nvml.nvmlDeviceGetGpuInstanceId(handle))
        compute_instance = ask(
            "compute_instance", lambda: nvml.nvmlDeviceGetComputeInstanceId(handle)
        )
    return CardSample(
        uuid=card.uuid,
        name=ask("name", lambda: nvml.nvmlDeviceGetName(handle)),
        util_frac=None if util is None else util.gpu / 100,
        memory_busy_frac=None if util is None else util.memory / 100,
        memory_used_bytes=None if memory is None else memory.used,
        memory_total_bytes=None if memory is None else memory.total,
        power_w=None if power_mw is None else power_mw / 1000,
        power_limit_w=None if limit_mw is None else limit_mw / 1000,
        temperature_c=temperature_c,
        throttle_reasons=None if reasons is None else throttle_words(reasons),
        mig=_mig_mode(whole),
        gpu_instance=gpu_instance,
        compute_instance=compute_instance,
        missing=tuple(reader.missing),
    )


def _mig_mode(whole: Any) -> bool | None:
    """Whether the card is divided; cards that cannot be are not, and nothing is missing."""
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(whole)
    except nvml.NVMLError as error:
        if error.value in GONE:
            raise
        return False if error.value in UNSUPPORTED else None
    return current == nvml.NVML_DEVICE_MIG_ENABLE


def throttle_words(reasons: int) -> tuple[str, ...]:
    """What holds the clocks down, from NVML's bit mask; bits without a name as numbers."""
    bits = [1 << n for n in range(reasons.bit_length()) if reasons >> n & 1]
    return tuple(_THROTTLE_WORDS.get(bit, f"reason {bit:#x}") for bit in bits if bit != _IDLE)
