"""The config against this machine: cores, GPUs, memory, and the files that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from actors.engine.route import ModelError
from cluster.config import Config, ConfigError
from cluster.console.words import some
from cluster.doctor.finding import Finding, failed, ok, warning
from cluster.fetch import FetchError, cached_default
from cluster.preflight import check, check_machine, resolved_dtype, resolved_path
from policies.vocabulary import Tier

AREA = "config"
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def check_cores(config: Config, cores: int, gpus: int) -> Iterator[Finding]:
    """Whether one machine of so many can host the pools."""
    figures = {"cores": cores, "gpus": gpus}
    try:
        check_machine(config, cores, gpus)
    except ConfigError as error:
        advice = "change the pool, or give --address of a cluster that has it"
        yield failed(AREA, "pools", str(error), advice, **figures)
        return
    threads = sum(
        pool.processes * pool.threads
        for pool in config.on_machine(cores).pools.values()
        if pool.threads
    )
    found = f"{some(len(config.pools), 'pool')} on {some(cores, 'core')}, {some(gpus, 'GPU')}"
    if threads > cores:
        said = f"{found}, but threads add up to {threads}"
        advice = "fewer threads, or cores: lease, so that workers compute in turn"
        yield warning(AREA, "pools", said, advice, threads=threads, **figures)
    else:
        yield ok(AREA, "pools", found, **figures)


def check_model(config: Config) -> tuple[Finding, Path | None]:
    """Whether the model is there, and its folder. Nothing is made."""
    path = config.model.path
    if path != "default":
        folder = resolved_path(path)
        if not folder.exists():
            advice = "give model.path a folder, a GGUF file or default"
            return failed(AREA, "model", f"{folder} is not there", advice), None
        if folder.is_file():
            found = f"{folder}, which the first start turns into a folder"
            return ok(AREA, "model", found, path=str(folder)), None
        return ok(AREA, "model", str(folder), path=str(folder)), folder
    try:
        cached = cached_default()
    except FetchError as error:
        return failed(AREA, "model", "the embedded model is not installed", str(error)), None
    if cached is None:
        advice = "python -m cluster fetch makes it now; the first start does too, in a minute"
        return warning(AREA, "model", "the embedded model is not made yet", advice), None
    return ok(AREA, "model", str(cached), path=str(cached)), cached


def check_files(config: Config) -> Finding:
    """All that `serve` checks before it starts anything: model, tokenizer, routes, keys."""
    try:
        facts = check(config)
    except (ConfigError, ModelError, FetchError) as error:
        return failed(AREA, "files", str(error), "see the key that is named first")
    tiers = sorted({str(tier) for pool in config.pools.values() for tier in pool.tiers})
    found = f"{facts.config.model.name} in {facts.dtype}, tiers {', '.join(tiers)}"
    return ok(AREA, "files", found, fingerprint=facts.fingerprint, dtype=facts.dtype)


def check_memory(config: Config, folder: Path, total_bytes: int, free_bytes: int) -> Finding:
    """Weights and keys and values of full of all workers on CPUs, roughly: what cannot fit is
    told before it is tried."""
    need = sum(
        pool.scale().max_workers * _full_bytes(config, folder, pool.slots)
        for pool in config.pools.values()
        if Tier.FULL in pool.tiers and pool.device == "cpu"
    )
    figures = {"needed_bytes": need, "total_bytes": total_bytes, "free_bytes": free_bytes}
    found = f"{_gib(free_bytes)} of {_gib(total_bytes)} free; full takes at most {_gib(need)}"
    advice = "fewer slots or workers, a smaller model.context, or dtype bfloat16"
    if need > total_bytes:
        return failed(AREA, "memory", found, advice, **figures)
    if need > free_bytes:
        return warning(AREA, "memory", found, advice, **figures)
    return ok(AREA, "memory", found, **figures)


def _full_bytes(config: Config, folder: Path, slots: int) -> int:
    """Of one worker. Keys and values are float32 on CPUs."""
    told = json.loads((folder / "config.json").read_text())
    dtype = resolved_dtype(config.model.dtype, ["cpu"])
    stored = str(told.get("dtype") or told.get("torch_dtype") or dtype)
    on_disk = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    weights = on_disk * _BYTES.get(dtype, 4) // _BYTES.get(stored, 4)
    heads = told["num_attention_heads"]
    width = told.get("head_dim") or told["hidden_size"] // heads
    kv_heads = told.get("num_key_value_heads") or heads
    per_token = 2 * told["num_hidden_layers"] * kv_heads * width * 4
    return weights + slots * config.model.context * per_token


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
