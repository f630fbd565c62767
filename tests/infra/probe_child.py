"""A process that samples: `python -m tests.infra.probe_child`, told what to do on its input.

A process of its own, since the loader looks for libnvidia-ml.so.1 along the LD_LIBRARY_PATH of
its start, and keeps what it found. Steps are JSON: {"driver": TEXT} writes the fake driver's
file, {"install": FILE} puts a library in place, {"pass_s": N} lets time pass, {"sample": true}
samples and prints what was seen, {"inventory": true} does so with all cards of the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from infra.probe.host import CpuTimes, HostMeter
from infra.probe.inventory import NoDriver, inventory
from infra.probe.nvml import Cards
from infra.probe.sampler import ProbeSettings, Sampler


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def main() -> None:
    clock = _Clock()
    meter = HostMeter(lambda: clock() / 4, clock, lambda: CpuTimes(0.0, clock(), 2 * clock()))
    steps = json.load(sys.stdin)
    cards = partial(Cards, os.environ.get("CUDA_VISIBLE_DEVICES"), steps.pop(0))
    sampler = Sampler(ProbeSettings(interval_s=1.0, retry_s=8.0), meter, cards, clock)
    for step in steps:
        match step:
            case {"driver": text}:
                Path(os.environ["FAKE_NVML"]).write_text(text)
            case {"install": library}:
                target = Path(os.environ["LD_LIBRARY_PATH"]) / "libnvidia-ml.so.1"
                target.unlink()
                shutil.copy(library, target)
            case {"pass_s": seconds}:
                clock.now_s += seconds
            case {"sample": True}:
                print(json.dumps(sampler.sample().describe()))
            case {"inventory": True}:
                print(json.dumps(_inventory()))
    sampler.stop()


def _inventory() -> dict[str, Any]:
    try:
        return asdict(inventory())
    except NoDriver as error:
        return {"why": str(error)}


if __name__ == "__main__":
    main()
