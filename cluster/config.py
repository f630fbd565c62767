"""The config: what the application's arguments in a Serve config file may say.

Checked by pydantic at the edge; every error names the key and what is allowed there.
`cluster.config_file` reads it from a file.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from cluster.config_balance import BalanceConfig
from cluster.config_liveness import LivenessConfig
from cluster.config_lossy import LiveConfig, LossyConfig, Section
from cluster.config_pools import HardwareConfig, PoolConfig, Positive
from cluster.config_scale import CouplingConfig
from cluster.config_tracing import TracingConfig
from cluster.errors import ConfigError
from cluster.files import DEFAULT_CONFIG as DEFAULT_CONFIG
from cluster.files import ROOT as ROOT
from policies.vocabulary import Plan, PlanKind, Tier

IMPORT_PATH = "cluster.app:build"
POLICY_PATH = "cluster.scaling:decide"
_POOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")

Seconds = Annotated[float, Field(gt=0)]


class ModelConfig(Section):
    """The full model: a folder, a GGUF file, or "default", the embedded one."""

    path: str = "default"
    """`default` (the embedded model), a folder, or a GGUF file, from which a folder is made in
    the cache; relative to the repository root."""
    name: str = "smollm2-135m-instruct"
    """What clients call the model."""
    aliases: tuple[str, ...] = ()
    """Other names that clients may use."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 where one of the devices computes it fast, else float32."""
    context: Positive = 4096
    """Tokens of prompt and answer together; at most what the model was made for."""


class DraftConfig(Section):
    """The draft: a model (as the full one), a route of the full model, or prompt lookup."""

    kind: Literal["model", "route", "ngram"] = "ngram"
    """`ngram` is prompt lookup, which has no weights; a `model` has the full one's tokenizer; a
    `route` is made of the full model."""
    path: str | None = None
    """Of the model (as `model.path`) or of the route file; not with `ngram`."""
    lookup: bool = False
    """A model or a route is asked only where prompt lookup finds nothing."""
    stop_below: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """A model or a route ends its proposal with the token that makes all of it less
    probable than this, by its own distribution; 0: always gamma tokens."""
    ngram_longest: Positive = 4
    """Tokens that prompt lookup looks for, at most."""
    ngram_shortest: Positive = 2
    """Tokens that prompt lookup looks for, at least."""

    @model_validator(mode="after")
    def _path_fits_kind(self) -> DraftConfig:
        if (self.path is None) != (self.kind == "ngram"):
            raise ValueError(f"path is {'not used' if self.path else 'needed'} by kind {self.kind}")
        if self.lookup and self.kind == "ngram":
            raise ValueError("lookup is for kinds model and route; kind ngram is nothing else")
        if self.stop_below and self.kind == "ngram":
            raise ValueError("stop_below is for kinds model and route; prompt lookup has no odds")
        if self.ngram_shortest > self.ngram_longest:
            raise ValueError("ngram_shortest must be at most ngram_longest")
        return self


class SlimConfig(Section):
    """The slim verifier: a route file of the full model."""

    route: str
    """A route file of the full model."""


class PlanConfig(Section):
    """What mode "auto" does, and the bounds of what a request may ask for."""

    mode: Literal["auto", "off", "two_tier", "three_tier"] = "auto"
    """`auto`: the controller chooses round by round, by what it measures as it goes; the others
    are always the same."""
    gamma: Positive = 4
    """Draft length of requests that name a mode and leave it out."""
    block: Positive = 8
    """Block length of requests that name a mode and leave it out."""
    max_gamma: Positive = 16
    """The longest draft that a request may ask for."""
    max_block: Positive = 32
    """The longest block that a request may ask for."""

    @field_validator("mode", mode="before")
    @classmethod
    def _off_is_a_word(cls, mode: Any) -> Any:
        # YAML 1.1 reads a bare `off` as false.
        return "off" if mode is False else mode

    def plan(self) -> Plan:
        """The same as the policies know it; where the controller chooses, only the shape."""
        kind = PlanKind.TWO_TIER if self.mode == "auto" else PlanKind(self.mode)
        return Plan(kind, self.gamma, self.block)

    @model_validator(mode="after")
    def _within_bounds(self) -> PlanConfig:
        if self.gamma > self.max_gamma or self.block > self.max_block:
            raise ValueError("gamma and block must be at most max_gamma and max_block")
        return self


class RouterConfig(Section):
    """Routers and their bounds; see RouterSettings."""

    replicas: Positive = 1
    """Routers; each knows every worker."""
    max_running: Positive = 16
    """Sessions that a router runs at once."""
    max_queued: Annotated[int, Field(strict=True, ge=0)] = 64
    """Sessions that wait behind these; more are refused (429)."""
    max_in_flight: Positive = 2
    """Steps under way at one worker, at most: the second hides the hop."""
    decode_tokens: Positive = 4
    """Tokens that plain decoding asks of a worker in one call, at most."""
    worker_wait_s: Seconds = 60.0
    """How long a session waits where no worker can serve it."""
    step_timeout_s: Seconds = 300.0
    """After so long a step counts as failed."""


class IngressConfig(Section):
    """The HTTP side. Keys come from `api_keys_file` (one a line) and the environment variable
    VIASERVE_API_KEYS (comma-separated); with neither the endpoint is open."""

    replicas: Positive = 1
    """Processes that speak HTTP."""
    max_body_bytes: Positive = 4 << 20
    """Of a request; a longer one is refused (413)."""
    max_choices: Positive = 16
    """`n` times the prompts of a request, at most."""
    default_max_tokens: Positive | None = None
    """Of requests that give none; null: a chat may fill the context."""
    api_keys_file: str | None = None
    """Keys, one a line; see also VIASERVE_API_KEYS."""
    metrics: Literal["open", "key", "off"] = "open"
    """/metrics answers all (like /health), asks for a key where there are keys, or is not there."""
    playground: bool = True
    """A chat page at `/`. It is open like /health, and asks for the key where there are keys."""

    @field_validator("metrics", mode="before")
    @classmethod
    def _off_is_a_word(cls, metrics: Any) -> Any:
        # YAML 1.1 reads a bare `off` as false.
        return "off" if metrics is False else metrics


class ControlConfig(HardwareConfig):
    """Where the parts without weights run: ingress, routers, and who keeps the workers alive.
    Anywhere by default; away from hosts that come and go is better."""


class Config(Section):
    """All of it."""

    model: ModelConfig = ModelConfig()
    """The full model."""
    draft: DraftConfig | None = DraftConfig()
    """The draft; null where no pool hosts one."""
    slim: SlimConfig | None = None
    """The slim verifier; null where no pool hosts one."""
    plan: PlanConfig = PlanConfig()
    """What mode `auto` does, and the bounds of requests."""
    lossy: LossyConfig = LossyConfig()
    """The lossy modes and their audit."""
    pools: Annotated[dict[str, PoolConfig], Field(min_length=1)]
    """By name: what hardware, how many workers, which tiers."""
    autoscale: CouplingConfig = CouplingConfig()
    """How a pool without full follows the pool with it."""
    router: RouterConfig = RouterConfig()
    """Routers and their bounds."""
    balance: BalanceConfig = BalanceConfig()
    """How routers use the workers there are."""
    ingress: IngressConfig = IngressConfig()
    """The HTTP side."""
    control: ControlConfig = ControlConfig()
    """Where the parts without weights run."""
    liveness: LivenessConfig = LivenessConfig()
    """After how much silence something is taken for lost."""
    tracing: TracingConfig = TracingConfig()
    """Traces by OpenTelemetry."""

    @property
    def scales(self) -> bool:
        """Whether the number of workers of any pool follows the load."""
        return any(pool.autoscale is not None for pool in self.pools.values())

    @property
    def may_sleep(self) -> list[Tier]:
        """Tiers that there may be no worker for while nothing is wrong."""
        awake = {t for p in self.pools.values() if p.scale().min_workers for t in p.tiers}
        return sorted({t for p in self.pools.values() for t in p.tiers} - awake)

    def hosts(self, tier: Tier) -> list[str]:
        """The pools that host a tier."""
        return [name for name, pool in self.pools.items() if tier in pool.tiers]

    def on_machine(self, cores: int) -> Config:
        """The same with every "auto" of `num_cpus` an equal share of the cores."""
        sharing = sum(p.processes for p in self.pools.values() if p.num_cpus == "auto")
        pools = {
            name: pool.model_copy(update={"num_cpus": cores / sharing})
            if pool.num_cpus == "auto"
            else pool
            for name, pool in self.pools.items()
        }
        return self.model_copy(update={"pools": pools})

    @field_validator("pools")
    @classmethod
    def _names_are_plain(cls, pools: dict[str, PoolConfig]) -> dict[str, PoolConfig]:
        # They name Serve deployments, workers and labels of metrics.
        if wrong := [name for name in pools if not _POOL_NAME.fullmatch(name)]:
            raise ValueError(
                f"a pool's name is at most 40 letters, digits, _ and -, not {wrong[0]!r}"
            )
        return pools

    @model_validator(mode="after")
    def _layout_is_possible(self) -> Config:
        if not self.hosts(Tier.FULL):
            raise ValueError("pools: no pool hosts the tier 'full'")
        for tier, section in ((Tier.DRAFT, self.draft), (Tier.SLIM, self.slim)):
            if self.hosts(tier) and section is None:
                raise ValueError(f"pools: tier '{tier}' is hosted, but section '{tier}' is missing")
        for tier in () if self.plan.mode == "auto" else sorted(self.plan.plan().kind.tiers):
            if not self.hosts(tier):
                raise ValueError(f"plan.mode {self.plan.mode} needs a pool with tier '{tier}'")
        if self.hosts(Tier.SLIM) and not self.screening_pools:
            raise ValueError("pools: 'slim' must share a pool with 'draft'; their loop has no hop")
        return self

    @model_validator(mode="after")
    def _scaled_pools_are_a_pair(self) -> Config:
        full = self.hosts(Tier.FULL)
        others = [name for name in self.pools if name not in full]
        if self.scales and (len(full) > 1 or len(others) > 1):
            raise ValueError(
                "pools: autoscale is for one pool that hosts 'full' and at most one other, here"
                f" are {', '.join(full)} with 'full'"
                + (f" and {', '.join(others)} without" if others else "")
            )
        return self

    @property
    def screening_pools(self) -> list[str]:
        """Pools that can serve three_tier: draft and slim in one worker."""
        return [n for n in self.hosts(Tier.SLIM) if Tier.DRAFT in self.pools[n].tiers]


def parse(args: dict[str, Any], source: str) -> Config:
    """A Config of plain values; ConfigError in one line that names the key."""
    try:
        return Config.model_validate(args)
    except ValidationError as error:
        raise ConfigError(f"config {source}: {explain(error)}") from error


def parse_live(args: dict[str, Any]) -> LiveConfig:
    """The `user_config` of deployment "router"; ConfigError in one line."""
    try:
        return LiveConfig.model_validate(args)
    except ValidationError as error:
        raise ConfigError(f"user_config of router: {explain(error)}") from error


def explain(error: ValidationError, prefix: str = "") -> str:
    """Every complaint, key first; pydantic's texts name the allowed values."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            text = "no such key here"
        elif item["type"] in ("model_type", "dict_type"):
            text = "must be a mapping"
        elif item["type"] in ("tuple_type", "list_type"):
            text = "must be a list"
        lines.append(prefix + (f"{where}: {text}" if where else text))
    return "; ".join(lines)
