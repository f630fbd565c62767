"""The image: its sources are there, and what it runs is a command of ours."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import yaml
from typer.main import get_command

from cluster.__main__ import cli
from cluster.config import ROOT
from cluster.config_file import load

FOLDER = ROOT / "infra" / "kubernetes"


def instructions() -> list[tuple[str, str]]:
    """Name and arguments, in order; continued lines joined, comments left out."""
    text = (FOLDER / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    parts = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [(name, rest) for name, rest in parts]


def of(name: str) -> list[str]:
    return [rest for kind, rest in instructions() if kind == name]


def copied() -> dict[str, str]:
    """Where each source goes, below the folder of work."""
    found: dict[str, str] = {}
    for rest in of("COPY"):
        *sources, target = [word for word in shlex.split(rest) if not word.startswith("--")]
        many = len(sources) > 1
        found |= {source: f"{target}{source}" if many else target for source in sources}
    return {source: target.removeprefix("./") for source, target in found.items()}


def test_every_source_exists_and_keeps_its_place() -> None:
    assert copied()
    for source, target in copied().items():
        assert (ROOT / source).exists(), source
        assert source == target


def test_every_source_is_in_the_builds_context() -> None:
    first, *rules = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    assert first == "*"
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    assert sorted(kept) == sorted(copied())


def test_all_that_is_ours_and_runs_is_copied() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages | {"config", "constraints.txt", "pyproject.toml"} <= copied().keys()


def test_what_the_setup_reads_is_there_when_it_runs() -> None:
    setup = (ROOT / ".ci/setup").read_text()
    read = [name for name in ("pyproject.toml", "constraints.txt") if name in setup]
    assert read
    steps = [(kind, rest) for kind, rest in instructions() if kind in ("COPY", "RUN")]
    runs = next(i for i, (kind, rest) in enumerate(steps) if kind == "RUN" and ".ci/setup" in rest)
    before = " ".join(rest for kind, rest in steps[:runs] if kind == "COPY")
    assert [name for name in [*read, ".ci/setup"] if name not in before] == []


def test_it_runs_as_nobody_special_from_before_anything_is_installed_for_it() -> None:
    order = [kind for kind, _ in instructions()]
    [user] = of("USER")
    assert int(user) > 0
    assert order.index("USER") < order.index("COPY")
    manifest = yaml.safe_load((FOLDER / "rayservice.yaml").read_text())
    head = manifest["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    assert head["securityContext"]["runAsUser"] == int(user)


def test_torch_comes_from_the_index_that_is_asked_for() -> None:
    [argument] = of("ARG")
    name, index = argument.split("=")
    assert re.fullmatch(r"cu\d{3}", index)
    assert any(f"{name}=${name} .ci/setup" in run for run in of("RUN"))


def test_ours_is_on_the_path_of_whatever_ray_starts() -> None:
    [work] = of("WORKDIR")
    variables = dict(pair.split("=", 1) for rest in of("ENV") for pair in shlex.split(rest))
    assert variables["PYTHONPATH"] == work
    assert variables["PATH"].split(":")[0] == f"{work}/.venv/bin"


def test_its_command_is_one_of_ours_and_its_health_is_asked_where_it_serves() -> None:
    [command] = map(json.loads, of("CMD"))
    assert command[:3] == ["python", "-m", "cluster"]
    name, *options = command[3:]
    parsed = get_command(cli).commands[name].make_context(name, options).params  # pyright: ignore[reportAttributeAccessIssue]
    _, http = load(ROOT / Path(parsed["config"]), parsed["set_"])
    assert http["host"] == "0.0.0.0"
    [health] = of("HEALTHCHECK")
    assert f"http://127.0.0.1:{http['port']}/health" in health
    assert str(http["port"]) in of("EXPOSE")
    compile(json.loads(health[health.index("[") :])[2], "health", "exec")
