"""Python, the packages that the project needs, and what torch was built for."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cluster.console.words import some
from cluster.doctor.finding import Finding, failed, ok, warning
from cluster.files import ROOT

AREA = "packages"
_INSTALL = "run `.ci/setup` (or `make serve`), or install it into this environment"


def check_packages(
    project: Path = ROOT / "pyproject.toml",
    version_of: Callable[[str], str] = metadata.version,
    python: str = ".".join(map(str, sys.version_info[:3])),
) -> Iterator[Finding]:
    """Against pyproject.toml. `version_of` raises PackageNotFoundError."""
    needs = tomllib.loads(project.read_text())["project"]
    wanted = needs["requires-python"]
    if SpecifierSet(wanted).contains(python):
        yield ok(AREA, "Python", python, wanted=wanted)
    else:
        advice = f"make the environment with Python {wanted}"
        yield failed(AREA, "Python", f"{python}, needed {wanted}", advice, wanted=wanted)
    yield from _installed([Requirement(text) for text in needs["dependencies"]], version_of)


def _installed(
    requirements: list[Requirement], version_of: Callable[[str], str]
) -> Iterator[Finding]:
    """A finding for each that is not as wanted, and one for all the others."""
    fitting: dict[str, str] = {}
    for requirement in requirements:
        name, wanted = requirement.name, str(requirement.specifier)
        try:
            version = version_of(name)
        except metadata.PackageNotFoundError:
            yield failed(AREA, name, f"not installed, needed {wanted}", _INSTALL, wanted=wanted)
            continue
        # A build's own suffix, as in 2.13.0+cpu, is no other version.
        if requirement.specifier.contains(version.partition("+")[0], prereleases=True):
            fitting[name] = version
        else:
            found = f"{version}, tested with {wanted}"
            yield warning(AREA, name, found, _INSTALL, version=version, wanted=wanted)
    if fitting:
        yield ok(AREA, "dependencies", f"{len(fitting)} as needed", versions=fitting)


def check_torch(torch: Any, devices: set[str], has_cards: bool) -> Finding:
    """`devices` are those of the config; `has_cards`: whether NVML sees any."""
    build = torch.__version__
    cuda = torch.version.cuda
    figures = {"version": build, "cuda": cuda, "available": torch.cuda.is_available()}
    built = f"{build}, built for {f'CUDA {cuda}' if cuda else 'CPUs'}"
    if figures["available"]:
        seen = some(torch.cuda.device_count(), "GPU")
        return ok(AREA, "torch", f"{built}, sees {seen}", **figures)
    wants_cuda = any(device.startswith("cuda") for device in devices)
    if has_cards and cuda is None:
        advice = "install torch for CUDA: TORCH_INDEX=cu130 make serve"
        say = failed if wants_cuda else warning
        return say(AREA, "torch", f"{built}, but there are GPUs", advice, **figures)
    if has_cards:
        advice = f"the driver is too old for CUDA {cuda}, or CUDA_VISIBLE_DEVICES hides the GPUs"
        say = failed if wants_cuda else warning
        return say(AREA, "torch", f"{built}, but it can use no GPU", advice, **figures)
    return ok(AREA, "torch", built, **figures)
