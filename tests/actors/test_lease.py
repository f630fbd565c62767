"""Laws of the compute lease, between real processes."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys
from actors.lease import ComputeLease

lease = ComputeLease(sys.argv[1] or None)
for line in sys.stdin:
    with lease:
        print("in", flush=True)
        sys.stdin.readline()
    print("out", flush=True)
"""


class Holder:
    """A process that takes the lease when told to, and gives it back when told to."""

    def __init__(self, name: str, tmp_path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, name],
            cwd=ROOT,
            env={"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self) -> None:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def take(self) -> None:
        self.tell()
        assert self.says() == "in"


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[list[Holder]]:
    """Processes of a test; ends with none of them alive."""
    started: list[Holder] = []
    yield started
    for holder in started:
        holder.process.kill()
        holder.process.communicate()


@pytest.fixture
def hold(holders: list[Holder], tmp_path: Path):
    def start(name: str) -> Holder:
        holders.append(Holder(name, tmp_path))
        return holders[-1]

    return start


def is_free(tmp_path: Path) -> bool:
    """Whether the only lease of the folder could be taken now."""
    (path,) = tmp_path.glob("viaserve-*.lease")
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_two_processes_hold_one_lease_in_turn(hold, tmp_path: Path):
    first, second = hold("cores"), hold("cores")
    first.take()
    assert not is_free(tmp_path)
    second.tell()
    first.tell()
    assert first.says() == "out"
    assert second.says() == "in"
    assert not is_free(tmp_path)
    second.tell()
    assert second.says() == "out"
    assert is_free(tmp_path)


@pytest.mark.parametrize("names", [("cores-0", "cores-1"), ("", "")], ids=["two", "none"])
def test_different_leases_and_no_lease_are_held_at_once(hold, names: tuple[str, str]):
    first, second = (hold(name) for name in names)
    first.take()
    second.take()


def test_dead_holder_frees_the_lease(hold):
    first, second = hold("cores"), hold("cores")
    first.take()
    second.tell()
    first.process.kill()
    assert second.says() == "in"
