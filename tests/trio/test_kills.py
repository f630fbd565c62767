"""Law of the trio's commands: killed in mid-run and given again, they end with the same files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.engine.route import Route, fingerprint
from cluster.trio.routes.objective import Steps, StepTimes
from cluster.trio.routes.step_times import fields_of
from tests.trio.toys import CHATS, TOKENS

ROOT = Path(__file__).parents[2]
WAIT_S = 600.0
POLL_S = 0.01
JUDGED = 6
"""Lines of the journal after which a search is killed."""


@dataclass(frozen=True)
class Case:
    """`begun`: whether a run that writes to a folder has something that the next one goes on
    with; `last`: the file that a run writes last of all."""

    command: str
    options: str
    begun: Callable[[Path], bool]
    last: str


LEARN = f"--tokens {300 * CHATS * TOKENS} --batch {CHATS} --checkpoint-s 0 --corpus {{corpus}}"
CASES = [
    Case(
        "corpus {model}",
        "--out {out} --shards 4 --chats 8 --tokens 256 --dtype float32 --seed 3",
        lambda out: (out / "shard-0000.safetensors").exists(),
        "shard-0003.safetensors",
    ),
    Case(
        "route {model}",
        "--out {out}/route.json --corpus {corpus} --layers 4 --candidates 8 --rows 100 --int8"
        " --held-out-rows 100 --chat-tokens 32 --references 2 --workers 1 --dtype float32"
        " --calibration {given}/steps.json",
        lambda out: _lines(out / "route.journal.jsonl") > JUDGED,
        "route.json",
    ),
    Case(
        "heal {given}/bare.json",
        f"--out {{out}}/slim.json --model {{model}} --rank 4 {LEARN}",
        lambda out: (out / "slim.ckpt").exists(),
        "slim.json",
    ),
    Case(
        "distill {model}",
        f"--out {{out}}/draft.json --layers 2 --shortlist 100 {LEARN}",
        lambda out: (out / "draft.ckpt").exists(),
        "draft.json",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.command.split()[0])
def test_a_killed_command_given_again_writes_the_same_files(case, idle_dir, corpus_dir, tmp_path):
    given, whole, broken = (tmp_path / name for name in ("given", "whole", "broken"))
    for folder in (given, whole, broken):
        folder.mkdir()
    route = Route(model_fingerprint=fingerprint(idle_dir), num_layers=7, kept_layers=(0, 4, 6))
    (given / "bare.json").write_text(route.model_dump_json())
    times = StepTimes(0.030, 0.040, 0.004, 0.0045)
    (given / "steps.json").write_text(json.dumps(fields_of(Steps(times, times))))

    def start(out: Path) -> subprocess.Popen[bytes]:
        text = f"{case.command} {case.options} --threads 1"
        filled = text.format(model=idle_dir, corpus=corpus_dir, given=given, out=out)
        command = [sys.executable, "-m", "cluster", *filled.split()]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)

    assert start(whole).wait(WAIT_S) == 0
    process = start(broken)
    _wait_until(lambda: case.begun(broken) or process.poll() is not None)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(WAIT_S) == -signal.SIGKILL
    assert not (broken / case.last).exists()
    assert start(broken).wait(WAIT_S) == 0
    assert (broken / case.last).exists()
    assert _written(broken) == _written(whole)


def _written(folder: Path) -> dict[str, bytes]:
    """The files that a later command reads, or the same one."""
    kinds = (".json", ".jsonl", ".safetensors")
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in kinds}


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(POLL_S)
