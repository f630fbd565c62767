"""All cards of a machine at one look, whoever uses them; for people, not for a serving process."""

from __future__ import annotations

import os
from dataclasses import dataclass

from infra.probe.driver import nvml
from infra.probe.nvml import Cards
from infra.probe.sample import CardSample


class NoDriver(Exception):  # noqa: N818 - says what there is not
    """NVML cannot be opened or does not answer; one line."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The driver's version, and the cards that a process started here would see."""

    driver: str
    cards: tuple[CardSample, ...]


def inventory(visible: str | None = None) -> Inventory:
    """`visible`: CUDA_VISIBLE_DEVICES, by default this process's. NoDriver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    try:
        nvml.nvmlInit()
        try:
            driver = nvml.nvmlSystemGetDriverVersion()
            names = [name for name in (visible or "").split(",") if name.strip()]
            count = nvml.nvmlDeviceGetCount() if visible is None else len(names)
            cards = Cards(visible, range(count))
            try:
                return Inventory(driver, cards.read())
            finally:
                cards.close()
        finally:
            nvml.nvmlShutdown()
    except Exception as error:  # the bindings raise several kinds; NoSuchCard among them
        raise NoDriver(" ".join(str(error).split()) or type(error).__name__) from error
