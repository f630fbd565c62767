"""Which of NVML's devices a process computes on. It reads CUDA's variable, not CUDA.

CUDA_VISIBLE_DEVICES lists indices, UUIDs (or unique beginnings of them) and MIG instances; what
follows the first entry that names nothing is not seen (CUDA Programming Guide, environment
variables). NVML counts in PCI order, so indices mean the same only under
CUDA_DEVICE_ORDER=PCI_BUS_ID or with cards of one kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.probe.driver import NO_SUCH, nvml


class NoSuchCard(Exception):  # noqa: N818 - says what there is not
    """The process is not given the card that it is to compute on."""


def find(visible: str | None, ordinal: int) -> Any:
    """NVML's handle of the process's card number `ordinal`, as CUDA counts under
    CUDA_VISIBLE_DEVICES=`visible` (None: not set).

    A MIG instance where the card is divided: the named one, else the first, as CUDA does.
    NoSuchCard; NVMLError where the driver fails.
    """
    if visible is None:
        names = [str(index) for index in range(nvml.nvmlDeviceGetCount())]
    else:
        names = [name.strip() for name in visible.split(",")]
    for at, name in enumerate(names[: ordinal + 1]):
        handle = _named(name)
        if handle is None:
            break
        if at == ordinal:
            return _first_instance(handle)
    given = "the driver has" if visible is None else f"CUDA_VISIBLE_DEVICES={visible!r} gives"
    raise NoSuchCard(f"{given} no card number {ordinal}")


def parent(handle: Any) -> Any:
    """The whole card of a MIG instance; None for a whole card."""
    try:
        if nvml.nvmlDeviceIsMigDeviceHandle(handle).value:
            return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    except nvml.NVMLError as error:
        if error.value not in NO_SUCH:
            raise
    return None


def _named(name: str) -> Any:
    """The handle of one entry; None where it names nothing."""
    if "/" in name:
        return _legacy_instance(name)
    try:
        if name.isdecimal():
            return nvml.nvmlDeviceGetHandleByIndex(int(name))
        return nvml.nvmlDeviceGetHandleByUUID(name)
    except nvml.NVMLError as error:
        if error.value not in NO_SUCH:
            raise
    return _beginning(name) if name.startswith("GPU-") else None


def _beginning(prefix: str) -> Any:
    """The only card whose UUID begins so, or None."""
    cards = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
    fit = [card for card in cards if nvml.nvmlDeviceGetUUID(card).startswith(prefix)]
    return fit[0] if len(fit) == 1 else None


def _legacy_instance(name: str) -> Any:
    """MIG-<GPU UUID>/<GPU instance>/<compute instance>, the form of drivers before 470."""
    card, _, wanted = name.removeprefix("MIG-").partition("/")
    handle = _named(card)
    for instance in _instances(handle) if handle is not None else ():
        gpu = nvml.nvmlDeviceGetGpuInstanceId(instance)
        if wanted == f"{gpu}/{nvml.nvmlDeviceGetComputeInstanceId(instance)}":
            return instance
    return None


def _first_instance(handle: Any) -> Any:
    return next(_instances(handle), handle) if parent(handle) is None else handle


def _instances(card: Any) -> Iterator[Any]:
    """The MIG instances of a card; their indices may have gaps."""
    try:
        slots = nvml.nvmlDeviceGetMaxMigDeviceCount(card)
    except nvml.NVMLError as error:
        if error.value not in NO_SUCH:
            raise
        slots = 0
    for index in range(slots):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, index)
        except nvml.NVMLError as error:
            if error.value not in NO_SUCH:
                raise
