"""Laws of `doctor`: each fault is found, told with what to do, and is an exit code."""

from __future__ import annotations

import io
import json
import resource
import shutil
import socket
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cluster.__main__ import cli
from cluster.config import DEFAULT_CONFIG, parse
from cluster.config_file import load
from cluster.doctor import endpoint, gpus, layout, machine, nodes, packages
from cluster.doctor.finding import Finding, Verdict, failed, ok, warning
from cluster.doctor.report import has_failed, render, to_json
from infra.probe.inventory import Inventory, NoDriver
from infra.probe.sample import CardSample
from policies.placing import Node
from tests.console import stub

FLEET = {
    "pools": {
        "cheap": {"tiers": ["draft"], "device": "cuda", "num_gpus": 0.5, "accelerator": "L4"},
        "large": {"tiers": ["full"], "num_cpus": 2},
    }
}
L4 = CardSample("GPU-1", "NVIDIA L4", memory_total_bytes=24 << 30, memory_used_bytes=1 << 30)


def by_what(findings: Any) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def verdicts(findings: Any) -> dict[str, str]:
    return {finding.what: str(finding.verdict) for finding in findings}


def test_whatever_is_not_well_says_what_to_do():
    assert ok("a", "b", "c").advice == ""
    for bad in (warning("a", "b", "c", "do it"), failed("a", "b", "c", "do it")):
        assert "→ do it" in _text([bad])


def _text(findings: list[Finding]) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(findings))
    return console.export_text()


def test_json_has_the_facts_of_the_table():
    findings = [ok("a", "b", "c", cores=2), failed("d", "e", "f", "g")]
    told = json.loads(to_json(findings))
    assert told["ok"] is False
    assert told["findings"][0]["figures"] == {"cores": 2}
    assert told["findings"][1]["advice"] == "g"
    assert "1 ok, 0 warning, 1 failed" in _text(findings)
    assert not has_failed(findings[:1])


def test_packages_are_held_to_the_project_file(tmp_path: Path):
    file = tmp_path / "pyproject.toml"
    file.write_text(
        '[project]\nrequires-python = ">=3.11,<3.13"\n'
        'dependencies = ["torch==2.13.0", "ray[serve]~=2.60.0", "rich>=14", "gone>=1"]\n'
    )
    here = {"torch": "2.13.0+cpu", "ray": "2.61.0", "rich": "14.1"}

    def version_of(name: str) -> str:
        if name not in here:
            raise metadata.PackageNotFoundError(name)
        return here[name]

    found = by_what(packages.check_packages(file, version_of, "3.13.1"))
    assert verdicts(found.values()) == {
        "Python": "failed",
        "ray": "warning",
        "gone": "failed",
        "dependencies": "ok",
    }
    assert set(found["dependencies"].figures["versions"]) == {"torch", "rich"}
    assert "2.61.0, tested with ~=2.60.0" in found["ray"].found


@pytest.mark.parametrize(
    ("cuda", "available", "devices", "cards", "verdict"),
    [
        (None, False, {"cpu"}, False, "ok"),
        (None, False, {"cpu"}, True, "warning"),
        (None, False, {"cuda"}, True, "failed"),
        ("13.0", False, {"cuda"}, True, "failed"),
        ("13.0", True, {"cuda"}, True, "ok"),
    ],
)
def test_torch_must_be_built_for_the_cards_that_are_used(cuda, available, devices, cards, verdict):
    here = SimpleNamespace(is_available=lambda: available, device_count=lambda: 1)
    torch = SimpleNamespace(__version__="2", version=SimpleNamespace(cuda=cuda), cuda=here)
    assert packages.check_torch(torch, devices, cards).verdict == verdict


def no_driver() -> Inventory:
    raise NoDriver("library not found")


def test_cards_are_missed_only_where_they_are_asked_for():
    findings, any_here = gpus.check_gpus(0.0, no_driver)
    assert (verdicts(findings), any_here) == ({"driver": "ok"}, False)
    assert verdicts(gpus.check_gpus(1.0, no_driver)[0]) == {"driver": "failed"}
    findings, _ = gpus.check_gpus(2.0, lambda: Inventory("580.1", (L4,)))
    assert verdicts(findings) == {"driver": "ok", "number": "failed", "GPU 0": "ok"}


def test_old_driver_throttling_and_mig_without_an_instance_are_told():
    hot = CardSample("GPU-2", "H100", throttle_reasons=("power cap",), missing=("no power",))
    empty = CardSample("GPU-3", "H100", mig=True)
    findings, _ = gpus.check_gpus(0.0, lambda: Inventory("470.2", (L4, hot, empty)))
    assert verdicts(findings) == {
        "driver": "warning",
        "GPU 0": "ok",
        "GPU 1": "warning",
        "GPU 1: not told": "warning",
        "GPU 2": "failed",
    }
    assert "held down by power cap" in by_what(findings)["GPU 1"].found


def test_limits_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert machine.check_shared_memory(tmp_path / "none").verdict is Verdict.FAILED
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=64e6, free=64e6))
    small = machine.check_shared_memory(tmp_path)
    assert (small.verdict, "--shm-size" in small.advice) == (Verdict.WARNING, True)
    assert machine.check_files(lambda kind: (1024, 1 << 20)).verdict is Verdict.WARNING
    endless = resource.RLIM_INFINITY
    assert machine.check_files(lambda kind: (endless, endless)).verdict is Verdict.OK


def test_compilers_are_missed_only_by_ranks_on_cpus():
    def none(name: str) -> None:
        return None

    assert verdicts(machine.check_programs(True, none)) == {"compilers": "warning", "ip": "ok"}
    assert verdicts(machine.check_programs(False, none)) == {"compilers": "ok", "ip": "ok"}


def test_a_port_is_free_taken_or_the_endpoints_own():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert machine.check_port("127.0.0.1", port, served=False).verdict is Verdict.FAILED
        assert machine.check_port("127.0.0.1", port, served=True).verdict is Verdict.OK
    assert machine.check_port("127.0.0.1", port, served=False).verdict is Verdict.OK


def test_pools_are_held_to_cores_gpus_and_memory(tmp_path: Path):
    config = parse(FLEET, "here")
    assert verdicts(layout.check_cores(config, 4, 0)) == {"pools": "failed"}
    alone = parse({"pools": {"all": {"tiers": ["full"], "threads": 9}}}, "here")
    assert verdicts(layout.check_cores(alone, 4, 0)) == {"pools": "warning"}
    assert verdicts(layout.check_cores(load(DEFAULT_CONFIG)[0], 4, 0)) == {"pools": "ok"}

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(sizes | {"torch_dtype": "bfloat16"}))
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    full = parse({"model": {"dtype": "float32", "context": 10}, **FLEET}, "here")
    needed = 2 * 1000 + 16 * 10 * (2 * 2 * 4 * 16 * 4)
    room = layout.check_memory(full, tmp_path, needed, needed)
    assert (room.verdict, room.figures["needed_bytes"]) == (Verdict.OK, needed)
    assert layout.check_memory(full, tmp_path, needed, needed - 1).verdict is Verdict.WARNING
    assert layout.check_memory(full, tmp_path, needed - 1, 0).verdict is Verdict.FAILED


def test_a_model_that_is_not_there_is_told():
    config = parse({"model": {"path": "/no/such"}, **FLEET}, "here")
    found, folder = layout.check_model(config)
    assert (found.verdict, folder) == (Verdict.FAILED, None)


def test_each_pool_is_held_to_the_nodes_labels_and_room():
    cards = {"CPU": 8.0, "GPU": 1.0}
    l4 = Node({"ray.io/accelerator-type": "L4"}, cards, cards)
    host = Node({}, {"CPU": 4.0}, {"CPU": 1.0})
    config = parse(FLEET | {"pools": FLEET["pools"] | {"large": {"tiers": ["full"]}}}, "here")
    found = by_what(nodes.judged(config, [host]))
    assert verdicts(found.values()) == {
        "node 1": "ok",
        "pool cheap": "warning",
        "pool large": "warning",
    }
    numbers = {name: pool | {"num_cpus": 4} for name, pool in FLEET["pools"].items()}
    config = parse({"pools": numbers}, "here")
    found = by_what(nodes.judged(config, [host]))
    assert found["pool cheap"].verdict is Verdict.FAILED
    assert "no node has ray.io/accelerator-type=L4" in found["pool cheap"].found
    assert found["pool large"].verdict is Verdict.WARNING
    found = by_what(nodes.judged(config, [host, l4]))
    assert found["pool cheap"].verdict is Verdict.OK
    config = parse(FLEET | {"control": {"label_selector": {"role": "head"}}}, "here")
    found = by_what(nodes.judged(config, [host, l4]))
    assert found["control"].verdict is Verdict.FAILED
    assert "no node has role=head" in found["control"].found


def test_a_cluster_that_is_not_there_is_told_in_seconds():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gone = taken.getsockname()[1]
    (found,) = nodes.check_cluster(parse(FLEET, "here"), f"127.0.0.1:{gone}")
    assert (found.verdict, "refused" in found.found) == (Verdict.FAILED, True)


def test_an_endpoint_is_told_by_its_pages():
    with stub.endpoint() as here:
        found = by_what(endpoint.check_endpoint(here.url))
        assert verdicts(found.values()) == {
            "/health": "ok",
            "/ready": "warning",
            "pool cheap": "warning",
            "worker large-2": "warning",
            "/version": "ok",
        }
        here.pages["/version"] |= {"row_invariant": False}
        here.pages["/ready"] = stub.status(status="loading", workers=[])
        found = by_what(endpoint.check_endpoint(here.url))
    assert (found["/ready"].verdict, found["/version"].verdict) == ("failed", "warning")


def test_another_server_and_none_are_failures():
    def other(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="hello")

    found = endpoint.check_endpoint("http://here", transport=httpx.MockTransport(other))
    assert verdicts(found) == {"/health": "ok", "/ready": "failed", "/version": "failed"}
    with stub.endpoint() as here:
        gone = here.url
    assert verdicts(endpoint.check_endpoint(gone)) == {"/health": "failed"}


def test_the_command_tells_all_areas_and_fails_where_one_does(default_model_dir: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(cli, ["doctor", "--json", "--set", f"http.port={port}"])
    assert done.exit_code == 1, done.output
    told = json.loads(done.stdout)
    bad = [found["what"] for found in told["findings"] if found["verdict"] == "failed"]
    assert f"port {port}" in bad
    areas = {found["area"] for found in told["findings"]}
    assert areas == {"packages", "GPUs", "machine", "ports", "config"}
