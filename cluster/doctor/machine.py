"""The machine without its GPUs: limits, shared memory, ports, and programs that may be needed."""

from __future__ import annotations

import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster.doctor.finding import Finding, failed, ok, warning

AREA = "machine"
SHARED_DIR = Path("/dev/shm")
LEAST_SHARED_BYTES = 1 << 30
LEAST_FILES = 4096
RAY_PORTS = {6379: "control service", 8265: "dashboard", 10001: "client server"}
"""What `ray start --head` takes; the Ray that `serve` starts by itself takes free ones."""


def check_shared_memory(folder: Path = SHARED_DIR) -> Finding:
    """Ray keeps its objects there, ranks on CPUs their sums."""
    try:
        room = shutil.disk_usage(folder)
    except OSError as error:
        advice = f"mount a tmpfs at {folder}"
        return failed(AREA, "shared memory", f"{folder}: {error.strerror}", advice)
    figures = {"total_bytes": room.total, "free_bytes": room.free}
    found = f"{folder}: {room.free / 2**30:.1f} of {room.total / 2**30:.1f} GiB free"
    if room.free < LEAST_SHARED_BYTES:
        advice = (
            "in a container: --shm-size=2g, or an emptyDir of medium Memory; Ray is slow without"
        )
        return warning(AREA, "shared memory", found, advice, **figures)
    return ok(AREA, "shared memory", found, **figures)


def check_files(
    limits: Callable[[int], tuple[int, int]] = resource.getrlimit,
) -> Finding:
    """Open files: each of Ray's processes and each connection takes some."""
    soft, hard = limits(resource.RLIMIT_NOFILE)
    figures = {"soft": soft, "hard": hard}
    found = f"{_limit(soft)} (at most {_limit(hard)})"
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        advice = "ulimit -n 65536 in the shell that serves; LimitNOFILE=65536 for systemd"
        return warning(AREA, "open files", found, advice, **figures)
    return ok(AREA, "open files", found, **figures)


def _limit(count: int) -> str:
    return "unlimited" if count == resource.RLIM_INFINITY else f"{count:,}"


def check_port(host: str, port: int, *, served: bool) -> Finding:
    """The endpoint's own. `served`: a server of ours is known to be there."""
    what = f"port {port}"
    if _is_free(host, port):
        return ok("ports", what, f"free on {host}", port=port)
    if served:
        return ok("ports", what, f"the endpoint at --url has it on {host}", port=port)
    advice = "end who listens there (ss -ltnp), or --set http.port=…"
    return failed("ports", what, f"taken on {host}", advice, port=port)


def check_ray_ports() -> Finding:
    """Only `ray start --head` needs them."""
    taken = [port for port in RAY_PORTS if not _is_free("0.0.0.0", port)]
    if not taken:
        return ok("ports", "Ray's", f"{', '.join(map(str, RAY_PORTS))} free")
    found = ", ".join(f"{port} ({RAY_PORTS[port]})" for port in taken) + " taken"
    advice = "fine where a Ray runs here already: give --address; else `ray start --port=…`"
    return warning("ports", "Ray's", found, advice, taken=taken)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def check_programs(
    needs_ranks: bool, which: Callable[[str], str | None] = shutil.which
) -> Iterator[Finding]:
    """Compilers of DeepSpeed's sums over shared memory, and what the drills of several hosts
    take. `needs_ranks`: a pool of the config splits full over processes on CPUs."""
    missing = [name for name in ("g++", "ninja") if which(name) is None]
    if not missing:
        yield ok(AREA, "compilers", "g++ and ninja: DeepSpeed can build its sums")
    elif needs_ranks:
        advice = "apt-get install g++; pip install ninja. Without them gloo's sums are slower"
        yield warning(AREA, "compilers", f"without {', '.join(missing)}", advice, missing=missing)
    else:
        found = f"without {', '.join(missing)}; no pool of the config needs them (tp 1)"
        yield ok(AREA, "compilers", found, missing=missing)
    if which("ip") is None:
        yield ok(AREA, "ip", "not there; only tests of several hosts need it (iproute2)")
    else:
        yield ok(AREA, "ip", "there, for tests of several hosts")
