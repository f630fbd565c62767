"""The cards: driver, MIG, memory, and what holds their clocks down."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cluster.doctor.finding import Finding, failed, ok, warning
from infra.probe.inventory import Inventory, NoDriver, inventory
from infra.probe.sample import CardSample

AREA = "GPUs"
OLDEST_DRIVER = 525
"""The first branch that runs CUDA 12; older ones run no torch that the project takes."""


def check_gpus(
    wanted: float, look: Callable[[], Inventory] = inventory
) -> tuple[list[Finding], bool]:
    """Findings, and whether there are cards. `wanted`: GPUs that the config asks for here."""
    try:
        found = look()
    except NoDriver as error:
        if wanted:
            advice = "install NVIDIA's driver (in a container: start it with --gpus all)"
            return [failed(AREA, "driver", str(error), advice)], False
        return [ok(AREA, "driver", f"none ({error}); the config asks for none")], False
    findings = [_driver(found.driver)]
    if len(found.cards) < wanted:
        here = f"{len(found.cards)} here, {wanted:g} asked for"
        advice = "fewer workers, num_gpus below 1, or --address of a cluster with more"
        findings.append(failed(AREA, "number", here, advice, cards=len(found.cards)))
    for number, card in enumerate(found.cards):
        findings += _card(number, card)
    return findings, bool(found.cards)


def _driver(version: str) -> Finding:
    branch = version.partition(".")[0]
    if branch.isdecimal() and int(branch) < OLDEST_DRIVER:
        advice = f"install a driver of branch {OLDEST_DRIVER} or newer"
        return warning(AREA, "driver", version, advice, version=version)
    return ok(AREA, "driver", version, version=version)


def _card(number: int, card: CardSample) -> Iterator[Finding]:
    what = f"GPU {number}"
    figures = {
        "name": card.name,
        "uuid": card.uuid,
        "memory_total_bytes": card.memory_total_bytes,
        "memory_used_bytes": card.memory_used_bytes,
        "mig": card.mig,
        "temperature_c": card.temperature_c,
        "throttle_reasons": list(card.throttle_reasons or ()),
    }
    parts = [card.name or "without a name"]
    if card.memory_total_bytes is not None:
        used, total = card.memory_used_bytes or 0, card.memory_total_bytes
        parts.append(f"{used / 2**30:.1f} of {total / 2**30:.0f} GiB in use")
    if card.temperature_c is not None:
        parts.append(f"{card.temperature_c} °C")
    if card.mig:
        parts.append(f"MIG instance {card.gpu_instance}" if card.gpu_instance else "MIG on")
    found = ", ".join(parts)
    if card.mig and card.gpu_instance is None:
        advice = "MIG is on without an instance: make one (nvidia-smi mig -cgi … -C) or turn it off"
        yield failed(AREA, what, found, advice, **figures)
    elif card.throttle_reasons:
        held = ", ".join(card.throttle_reasons)
        advice = "see to cooling and power, or to the clocks that were set (nvidia-smi -q -d CLOCK)"
        yield warning(AREA, what, f"{found}; held down by {held}", advice, **figures)
    else:
        yield ok(AREA, what, found, **figures)
    if card.missing:
        advice = "balance uses queues and busy time instead"
        yield warning(AREA, f"{what}: not told", "; ".join(card.missing), advice)
