"""Checks a config against the files it names, before any process is started.

Turns a Config into the frozen settings of the parts; every fault is one readable line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from actors.engine.build import EngineSpec, TierSource, check_same_tokenizer, checked_route
from actors.engine.loader import load_config
from actors.engine.route import ModelError, fingerprint, read_route
from actors.ingress.settings import IngressSettings
from actors.lookup import Lookup
from actors.router import RouterSettings
from cluster.config import ROOT, Config, ConfigError, DraftConfig
from cluster.config_pools import PoolConfig
from cluster.fetch import fetch_default, fetch_gguf
from cluster.trio.arithmetic import fast_dtype
from policies.labels import matches
from policies.placing import Node, no_such_node, pairs
from policies.plan_settings import ControllerSettings
from policies.vocabulary import Tier


@dataclass(frozen=True, slots=True)
class Facts:
    """What the files say: everything the parts are built from."""

    config: Config
    model_dir: Path
    fingerprint: str
    dtype: str
    sources: dict[Tier, TierSource]
    eos_ids: frozenset[int]
    vocab_size: int
    api_keys: tuple[str, ...]

    def engine(self, pool: PoolConfig) -> EngineSpec:
        """What a worker of the pool builds."""
        return EngineSpec(
            tiers={tier: self.sources[tier] for tier in pool.tiers},
            dtype=self.dtype,
            device=pool.device,
            num_slots=pool.slots,
            slot_tokens=self.config.model.context,
            token_budget=pool.token_budget,
            vocab_size=self.vocab_size,
        )

    def ingress(self) -> IngressSettings:
        """What the HTTP side is told."""
        config, plan = self.config, self.config.plan
        return IngressSettings(
            model_name=config.model.name,
            aliases=config.model.aliases,
            max_context=config.model.context,
            vocab_size=self.vocab_size,
            eos_ids=self.eos_ids,
            default_max_tokens=config.ingress.default_max_tokens,
            max_choices=config.ingress.max_choices,
            max_body_bytes=config.ingress.max_body_bytes,
            api_keys=self.api_keys,
            plan=plan.plan(),
            auto=plan.mode == "auto",
            max_gamma=plan.max_gamma,
            max_block=plan.max_block,
            lossy=config.lossy.limits(),
            system_fingerprint=f"fp_{self.fingerprint}",
            echo_request_id=False,  # Serve's proxy does
            metrics=config.ingress.metrics,
            playground=config.ingress.playground,
        )

    @property
    def trio(self) -> str:
        """What the audit's figures are about: draft, slim and full of this application."""
        parts = (f"{tier}={source}" for tier, source in sorted(self.sources.items()))
        return f"{self.fingerprint} {self.dtype} {' '.join(parts)}"

    def controller(self) -> ControllerSettings:
        """What the controller behind "auto" is told."""
        plan, usual = self.config.plan, ControllerSettings()
        pools = [pool for pool in self.config.pools.values() if Tier.FULL in pool.tiers]
        workers = sum(pool.replicas for pool in pools)
        usual = usual.at_scale(workers, max(pool.slots for pool in pools))
        return replace(
            usual,
            max_gamma=min(usual.max_gamma, plan.max_gamma),
            max_block=min(usual.max_block, plan.max_block),
            decode_tokens=self.config.router.decode_tokens,
        )

    def _lookup(self) -> Lookup | None:
        draft = self.sources.get(Tier.DRAFT)
        if draft is None or draft.model_dir is not None or not self.config.hosts(Tier.DRAFT):
            return None
        return Lookup(draft.ngram_longest, draft.ngram_shortest)

    def _spare(self) -> Lookup | None:
        """Prompt lookup that stands in for a busy worker's draft, which begins with the same."""
        draft = self.config.draft
        if draft is None or not draft.lookup or not self.config.hosts(Tier.DRAFT):
            return None
        return Lookup(draft.ngram_longest, draft.ngram_shortest)

    def router(self) -> RouterSettings:
        """What a router is told."""
        router, balance = self.config.router, self.config.balance
        return RouterSettings(
            max_running=router.max_running,
            max_queued=router.max_queued,
            max_in_flight=router.max_in_flight,
            decode_tokens=router.decode_tokens,
            worker_wait_s=router.worker_wait_s,
            step_timeout_s=router.step_timeout_s,
            lookup=self._lookup(),
            spare=self._spare(),
            moves=balance.moves,
            balance=balance.settings(),
            pressure=balance.pressure_settings(),
            deadline=balance.deadline(),
            share=1 / router.replicas if self.config.scales else None,
        )


def check(config: Config) -> Facts:
    """ModelError, FetchError or ConfigError where the config cannot be served."""
    config = config.on_machine(os.cpu_count() or 1)
    model_dir = model_dir_of(config.model.path)
    model = load_config(model_dir)
    limit = getattr(model, "max_position_embeddings", config.model.context)
    if config.model.context > limit:
        raise ConfigError(f"model.context: {config.model.context} is more than the model's {limit}")
    for name, pool in config.pools.items():
        if pool.tp > model.num_key_value_heads:
            raise ConfigError(
                f"pools.{name}.tp: {pool.tp} is more than the model's {model.num_key_value_heads}"
                " key/value heads"
            )
    tokenizer = _tokenizer(model_dir)
    return Facts(
        config=config,
        model_dir=model_dir,
        fingerprint=_fingerprint(model_dir),
        dtype=resolved_dtype(config.model.dtype, _devices(config)),
        sources=_sources(config, model_dir),
        eos_ids=_eos_ids(model_dir, tokenizer),
        vocab_size=model.vocab_size,
        api_keys=_api_keys(config),
    )


def check_machine(config: Config, cores: int, gpus: int) -> None:
    """ConfigError where one machine with so many cores and GPUs cannot host the pools, on their
    own hardware or a fallback."""
    # Serve would wait without end for an ingress that has no place.
    if config.control.label_selector or (config.control.accelerator and not gpus):
        raise ConfigError(
            "control: a Ray of this machine's own has no node with"
            f" {pairs(config.control.selector)}; give --address"
        )
    asked_gpus = 0.0
    for name, pool in config.pools.items():
        faults = [_fault_here(way, cores, gpus) for way in pool.ways]
        if all(faults):
            raise ConfigError(f"pools.{name}.{faults[0]}")
        way = pool.ways[faults.index(None)]
        asked_gpus += way.num_gpus * way.processes
    if asked_gpus > gpus:
        raise ConfigError(
            f"pools: {asked_gpus:g} GPUs are asked for (num_gpus times tp times replicas, or"
            f" autoscale.max), this machine has {gpus}"
        )


def check_control(config: Config, nodes: Sequence[Node]) -> None:
    """ConfigError where no node of a cluster may hold ingress and routers: Serve would wait for
    one without end, and nothing else would be there to say so."""
    selector = config.control.selector
    if not any(matches(selector, node.labels) for node in nodes):
        raise ConfigError(f"control: {no_such_node(selector, nodes)}")


def _fault_here(pool: PoolConfig, cores: int, gpus: int) -> str | None:
    """What a machine of our own lacks for a worker, key first."""
    if not isinstance(pool.num_cpus, str) and pool.num_cpus > cores:
        return f"num_cpus: {pool.num_cpus:g} is more than this machine's {cores} cores"
    for key, asked in (("label_selector", pool.label_selector), ("resources", pool.resources)):
        if asked:
            return f"{key}: a Ray of this machine's own has none; give --address"
    if pool.num_gpus * pool.tp > gpus:
        return f"num_gpus: {pool.num_gpus * pool.tp:g} is more than this machine's {gpus} GPUs"
    return None


def _devices(config: Config) -> set[str]:
    """Those that workers may come to run on."""
    return {way.device for pool in config.pools.values() for way in pool.ways}


def resolved_path(path: str) -> Path:
    """A path of the config: absolute, or relative to the repository root."""
    return ROOT / Path(path).expanduser()


def model_dir_of(path: str) -> Path:
    """A model's folder; the embedded model and a GGUF file become one first."""
    if path == "default":
        return fetch_default()
    resolved = resolved_path(path)
    return fetch_gguf(resolved) if resolved.suffix == ".gguf" else resolved


def resolved_dtype(dtype: str, devices: Iterable[str]) -> str:
    """What "auto" is: bfloat16 where one of the devices computes it fast, else float32. Others
    are themselves."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if torch.bfloat16 in map(fast_dtype, devices) else "float32"


def _sources(config: Config, model_dir: Path) -> dict[Tier, TierSource]:
    sources = {Tier.FULL: TierSource(str(model_dir))}
    if config.slim is not None:
        route = resolved_path(config.slim.route)
        if checked_route(model_dir, route).route.reads is not None:
            raise ConfigError(f"slim.route: {config.slim.route} is a draft's: it reads full")
        sources[Tier.SLIM] = TierSource(str(model_dir), str(route))
    if config.draft is not None:
        sources[Tier.DRAFT] = _draft_source(config.draft, model_dir)
        if (route := sources[Tier.DRAFT].route) is not None:
            _check_reader_beside_full(config, Path(route))
    return sources


def _check_reader_beside_full(config: Config, route: Path) -> None:
    """ConfigError where a draft that reads full's hidden states would be without them: they
    never leave a worker."""
    if read_route(route).reads is None:
        return
    for name in config.hosts(Tier.DRAFT):
        if Tier.FULL not in config.pools[name].tiers:
            raise ConfigError(
                f"pools.{name}.tiers: the draft {route.name} reads full's hidden states; host"
                " 'draft' where 'full' is, or give a draft that reads nothing"
            )


def _draft_source(draft: DraftConfig, model_dir: Path) -> TierSource:
    lookup = TierSource(
        ngram_longest=draft.ngram_longest,
        ngram_shortest=draft.ngram_shortest,
        lookup=draft.lookup,
        stop_below=draft.stop_below,
    )
    if draft.path is None:
        return lookup
    if draft.kind == "route":
        path = resolved_path(draft.path)
        checked_route(model_dir, path)
        return replace(lookup, model_dir=str(model_dir), route=str(path))
    path = model_dir_of(draft.path)
    load_config(path)
    _fingerprint(path)
    _tokenizer(path)
    check_same_tokenizer(model_dir, path)
    return replace(lookup, model_dir=str(path))


def _tokenizer(model_dir: Path) -> Any:
    if not (model_dir / "tokenizer.json").is_file():
        raise ModelError(f"model {model_dir}: no tokenizer.json there")
    try:
        return AutoTokenizer.from_pretrained(
            model_dir, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # the tokenizers library raises no narrower one
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"model {model_dir}: tokenizer.json: {reason}") from error


def _fingerprint(model_dir: Path) -> str:
    if not any(model_dir.glob("*.safetensors")):
        raise ModelError(f"model {model_dir}: no .safetensors file there")
    return fingerprint(model_dir)


def _eos_ids(model_dir: Path, tokenizer: Any) -> frozenset[int]:
    """The ids that end an answer: the model's, its generation config's, the tokenizer's."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        if (model_dir / name).is_file():
            try:
                eos = json.loads((model_dir / name).read_text()).get("eos_token_id")
            except (ValueError, AttributeError) as error:
                raise ModelError(f"model {model_dir}: {name}: not a JSON object") from error
            found |= {eos} if isinstance(eos, int) else set(eos or ())
    if isinstance(tokenizer.eos_token_id, int):
        found.add(tokenizer.eos_token_id)
    return frozenset(found)


def _api_keys(config: Config) -> tuple[str, ...]:
    keys = _stripped(os.environ.get("VIASERVE_API_KEYS", "").split(","))
    if (file := config.ingress.api_keys_file) is not None:
        try:
            in_file = _stripped(resolved_path(file).read_text().splitlines())
        except OSError as error:
            raise ConfigError(f"ingress.api_keys_file: {file}: {error.strerror}") from error
        if not in_file:  # or a file emptied by mistake would open the endpoint
            raise ConfigError(f"ingress.api_keys_file: {file}: no key in it")
        keys += in_file
    return keys


def _stripped(keys: list[str]) -> tuple[str, ...]:
    return tuple(key.strip() for key in keys if key.strip())
