"""Laws of the hosts that tests are played on: apart from each other, and gone afterwards."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.hosts.netns import Network, network, why_not
from tests.serving.server import ROOT

TRIES = 30
CHILD = """
import sys
from pathlib import Path
from tests.hosts.netns import network
with network() as net:
    host = net.add("lost")
    with open("/dev/null", "wb") as out:
        process = host.start("sleep", "1000", env={}, out=out, cwd=Path("/"))
    while process.pid not in host.pids():
        pass
    print(net.name, process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture
def net() -> Iterator[Network]:
    """Ends with: no namespace and no interface of it is left."""
    with network() as made:
        yield made
    assert made.name not in left()
    assert not made.book.exists()


def left() -> str:
    """All namespaces and interfaces."""
    asked = (["ip", "netns", "list"], ["ip", "-brief", "link"])
    return "".join(subprocess.check_output(command, text=True) for command in asked)


def reaches(net: Network, name: str, port: int, tries: int = TRIES) -> bool:
    """Whether a host can connect to this process, now or after some more tries."""
    call = f"exec 3<>/dev/tcp/{net.subnet[1]}/{port}"
    for _ in range(tries):
        with contextlib.suppress(subprocess.CalledProcessError):
            net.hosts[name].run("timeout", "2", "bash", "-c", call)
            return True
    return False


def test_cut_link_parts_one_host_alone_until_it_is_mended(net: Network) -> None:
    one, other = net.add("one"), net.add("other")
    assert one.address != other.address
    with socket.create_server((str(net.subnet[1]), 0)) as server:
        port = server.getsockname()[1]
        assert reaches(net, "one", port)
        one.cut()
        assert not reaches(net, "one", port, tries=1)
        assert reaches(net, "other", port)
        one.mend()
        assert reaches(net, "one", port)


def test_killed_host_loses_all_its_processes_and_no_other_any(net: Network) -> None:
    with Path(os.devnull).open("wb") as out:
        sleeping = [
            net.add(name).start("sleep", "1000", env={}, out=out, cwd=ROOT)
            for name in ("one", "other")
        ]
    net.hosts["one"].kill()
    assert sleeping[0].poll() is not None
    assert net.hosts["one"].pids() == []
    assert sleeping[1].poll() is None
    net.hosts["other"].kill()
    assert sleeping[1].poll() is not None


def test_what_a_killed_run_left_is_gone_with_the_next_one() -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", CHILD], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert run.stdout is not None
    name, pid = run.stdout.readline().decode().split()
    with network():
        assert name in left(), "it is not ours while its run lives"
    orphan = psutil.Process(int(pid))
    run.kill()
    run.communicate()
    assert name in left()
    with network():
        assert name not in left()
    assert psutil.wait_procs([orphan], timeout=10.0)[1] == []
