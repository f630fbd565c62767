"""The cluster-launcher file against Ray's own schema."""

from __future__ import annotations

from pathlib import Path

import yaml
from ray.autoscaler._private.util import fillout_defaults, validate_config

from cluster.config import load

ROOT = Path(__file__).resolve().parents[2]


def launcher() -> dict:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def test_the_launcher_file_satisfies_rays_schema() -> None:
    validate_config(fillout_defaults(launcher()))


def test_every_pool_of_the_gpu_example_fits_a_node_type() -> None:
    config, _ = load(ROOT / "config" / "gpu-pair.yaml")
    types = launcher()["available_node_types"].values()
    for name, pool in config.pools.items():
        fits = [
            node
            for node in types
            if node["resources"].get("GPU", 0) >= pool.num_gpus
            and node["resources"]["CPU"] >= pool.num_cpus
            and pool.label_selector.items() <= node["labels"].items()
        ]
        assert fits, name
