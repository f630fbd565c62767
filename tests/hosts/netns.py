"""Hosts on one machine: network namespaces on a bridge, with addresses and links of their own.

It knows `ip` and processes, nothing of Ray. What a run makes is written down first, so that a
run that was killed is cleaned up by the next one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import psutil

_BOOKS = Path(tempfile.gettempdir()) / f"viaserve-hosts-{os.getuid()}"
_SUBNETS = list(ipaddress.IPv4Network("10.192.0.0/11").subnets(new_prefix=24))


def why_not() -> str | None:
    """Why namespaced hosts cannot be made here; None where they can."""
    if shutil.which("ip") is None:
        return "iproute2 (the command `ip`) is not installed"
    try:
        with network() as net:
            net.add("probe").run("true")
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here (root is needed): {error.stderr.strip()}"
    return None


@dataclass
class Host:
    """One namespace. Its processes are those that were started in it, and theirs."""

    name: str
    namespace: str
    link: str
    address: str

    def start(
        self, *command: str, env: Mapping[str, str], out: BinaryIO, cwd: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process here; its output goes to a file."""
        return subprocess.Popen(
            self._inside(command),
            env=os.environ | env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def run(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """A command here, to its end; gives its output."""
        return _run(self._inside(command), os.environ | (env or {}))

    def _inside(self, command: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *command]

    def pids(self) -> list[int]:
        """Of all processes here."""
        return [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]

    def kill(self) -> None:
        """End all processes here at once, as a power cut does."""
        _kill_inside(self.namespace)

    def cut(self) -> None:
        """Take the link down: what is sent from now on is lost, and nobody is told."""
        _ip("link", "set", self.link, "down")

    def mend(self) -> None:
        """Bring the link up again."""
        _ip("link", "set", self.link, "up")


@dataclass
class Network:
    """The bridge, on which this process has an address of its own, and the hosts on it."""

    name: str
    subnet: ipaddress.IPv4Network
    book: Path
    hosts: dict[str, Host] = field(default_factory=dict)

    def add(self, name: str) -> Host:
        """One more host."""
        number = len(self.hosts) + 1
        namespace, link = f"{self.name}-{name}", f"{self.name}l{number}"
        host = Host(name, namespace, link, str(self.subnet[number + 1]))
        self.hosts[name] = host
        self._write()
        _ip("netns", "add", namespace)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", link, "master", self.name)
        _ip("link", "set", link, "up")
        address = f"{host.address}/{self.subnet.prefixlen}"
        _ip("-n", namespace, "address", "add", address, "dev", "eth0")
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        return host

    def open(self) -> None:
        """Make the bridge."""
        self._write()
        _ip("link", "add", self.name, "type", "bridge")
        _ip("address", "add", f"{self.subnet[1]}/{self.subnet.prefixlen}", "dev", self.name)
        _ip("link", "set", self.name, "up")

    def _write(self) -> None:
        owner = psutil.Process()
        facts = {
            "owner": [owner.pid, owner.create_time()],
            "namespaces": [host.namespace for host in self.hosts.values()],
            "links": [host.link for host in self.hosts.values()],
        }
        self.book.write_text(json.dumps(facts))


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network without hosts; at the end nothing of it is left."""
    _BOOKS.mkdir(exist_ok=True)
    for book in _BOOKS.glob("*.json"):
        _tidy(book)
    name = f"vs{secrets.token_hex(3)}"
    net = Network(name, _free_subnet(), _BOOKS / f"{name}.json")
    try:
        net.open()
        yield net
    finally:
        _end(net.book)


def _tidy(book: Path) -> None:
    """End what a run has left that is no more."""
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        pid, created = _read(book)["owner"]
        if psutil.Process(pid).create_time() == created:
            return
    _end(book)


def _end(book: Path) -> None:
    """Delete namespaces, links and bridge. Links first: with their namespace they would go too,
    but some time later."""
    with contextlib.suppress(FileNotFoundError):
        facts = _read(book)
        for namespace in facts["namespaces"]:
            with contextlib.suppress(subprocess.CalledProcessError):
                _kill_inside(namespace)
        for link in (*facts["links"], book.stem):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("link", "delete", link)
        for namespace in facts["namespaces"]:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", namespace)
        book.unlink()


def _read(book: Path) -> dict[str, Any]:
    return json.loads(book.read_text())


def _kill_inside(namespace: str) -> None:
    """Again until there is none: processes may be starting others."""
    while pids := _ip("netns", "pids", namespace).split():
        victims = [psutil.Process(int(pid)) for pid in pids if psutil.pid_exists(int(pid))]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        psutil.wait_procs(victims, timeout=10.0)


def _free_subnet() -> ipaddress.IPv4Network:
    """One that no interface of this machine is in; a random one, since others choose as well."""
    told = json.loads(_ip("-json", "-4", "address"))
    taken = [
        ipaddress.ip_interface(f"{a['local']}/{a['prefixlen']}").network
        for interface in told
        for a in interface["addr_info"]
    ]
    free = [net for net in _SUBNETS if not any(net.overlaps(other) for other in taken)]
    return secrets.choice(free)


def _ip(*args: str) -> str:
    return _run(["ip", *args], os.environ)


def _run(command: Sequence[str], env: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    return done.stdout
