"""CPUs and compute threads of a pool's worker."""

from __future__ import annotations

from cluster.config_pools import PoolConfig


def cpus_of(pool: PoolConfig) -> float:
    """The CPUs of a worker, "auto" resolved (Config.on_machine)."""
    assert not isinstance(pool.num_cpus, str)
    return pool.num_cpus


def threads_of(pool: PoolConfig) -> int:
    """Compute threads of a worker: as set, or its CPUs."""
    return pool.threads or max(1, int(cpus_of(pool)))
