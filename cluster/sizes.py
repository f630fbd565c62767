"""CPUs, compute threads and environment of a pool's worker process. Imports no torch: the
environment must be set before OpenMP is loaded."""

from __future__ import annotations

from cluster.config_pools import PoolConfig

LEASED_SPIN_COUNT = "10000"
"""About 0.1 ms: bridges the barriers of a step, and is over soon after the lease is given back."""


def cpus_of(pool: PoolConfig) -> float:
    """The CPUs of a worker, "auto" resolved (Config.on_machine)."""
    assert not isinstance(pool.num_cpus, str)
    return pool.num_cpus


def threads_of(pool: PoolConfig) -> int:
    """Compute threads of a worker: as set, or its CPUs."""
    return pool.threads or max(1, int(cpus_of(pool)))


def worker_env(pool: PoolConfig) -> dict[str, str]:
    """Environment of a worker process."""
    threads = str(threads_of(pool))
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # CUDA counts the cards as NVML and Ray do, also where they are of several kinds.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        **waiting_env(pool),
    }


def waiting_env(pool: PoolConfig) -> dict[str, str]:
    """How compute threads wait for each other. Threads that spin at a barrier on cores that others
    need stall both, so shared cores mean sleeping there, or short spins under a lease."""
    match pool.cores:
        case "passive":
            return {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        case "lease":
            return {"GOMP_SPINCOUNT": LEASED_SPIN_COUNT}
        case "own":
            return {}


def added_niceness(pool: PoolConfig) -> int:
    """What a worker process adds to the niceness that Ray gave it."""
    return 0 if pool.cores == "own" else pool.niceness
