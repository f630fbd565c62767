"""A fleet description: hardware, models, acceptance and prices of a fleet that need not exist.

Checked by pydantic; every error names the key. What it predicts is a roofline's, which nobody
has measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from cluster.config import ConfigError, Positive, explain
from cluster.config_lossy import Section
from cluster.simulate.figures import SimulateFigures
from policies.advice import Bounds, Prices
from policies.costs import CostModel, Rates, TierCost
from policies.roofline import Hardware, ModelSize, forward_time
from policies.vocabulary import Tier

CARDS = Path(__file__).parent / "cards.yaml"
Amount = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0, le=60_000)]


class ModelFigures(Section):
    """A model by its size, or a `folder` with safetensors. `weight_bits`: of each parameter as
    it is read."""

    folder: str | None = None
    parameters_billion: Amount | None = None
    weight_bits: Amount = 16
    kv_bytes_per_token: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> ModelFigures:
        if (self.folder is None) == (self.parameters_billion is None):
            raise ValueError("give either folder or parameters_billion")
        if self.folder is None and self.kv_bytes_per_token is None:
            raise ValueError("kv_bytes_per_token is needed without a folder")
        return self

    def size(self) -> ModelSize:
        """Raises ConfigError where the folder holds no model."""
        if self.folder is not None:
            return _size_of(Path(self.folder).expanduser(), self.weight_bits)
        assert self.parameters_billion is not None
        assert self.kv_bytes_per_token is not None
        parameters = self.parameters_billion * 1e9
        return ModelSize(parameters, parameters * self.weight_bits / 8, self.kv_bytes_per_token)


class SlimFigures(Section):
    """The slim as a share of full's layers (its parameters, keys and values)."""

    share_of_full: Share
    weight_bits: Amount | None = None

    def size(self, full: ModelFigures) -> ModelSize:
        """Of full's size and, where none are given, its bits."""
        whole, bits = full.size(), self.weight_bits or full.weight_bits
        share = self.share_of_full
        weight_bytes = share * whole.weight_bytes * bits / full.weight_bits
        return ModelSize(share * whole.parameters, weight_bytes, share * whole.kv_bytes_per_token)


class Models(Section):
    """The trio; without `slim` there are no three tiers."""

    full: ModelFigures
    draft: ModelFigures
    slim: SlimFigures | None = None


class AcceptanceFigures(Section):
    """a0, a1 and a2 of DESIGN section 4."""

    a0: Rate
    a1: Rate = 0.0
    a2: Rate = 0.0


class PoolFigures(Section):
    """One worker of a pool. `card`: a name of cards.yaml, or the figures of one of your own
    (`memory_gb` is for `simulate` alone); `price_per_hour`: of the worker, all of its `cards`."""

    card: str | None = None
    memory_gb: Amount | None = None
    memory_bandwidth_gb_per_s: Amount | None = None
    bf16_tflop_per_s: Amount | None = None
    cards: Positive = 1
    bandwidth_frac: Share = 0.7
    compute_frac: Share = 0.5
    overhead_ms: Milliseconds = 1.0
    price_per_hour: Annotated[float, Field(ge=0)] | None = None

    @field_validator("card")
    @classmethod
    def _known(cls, card: str | None) -> str | None:
        if card is not None and card not in cards():
            raise ValueError(f"{card} is not among {', '.join(cards())}; or give its figures")
        return card

    @model_validator(mode="after")
    def _figures_are_there(self) -> PoolFigures:
        own = (self.memory_bandwidth_gb_per_s, self.bf16_tflop_per_s)
        if self.card is None and None in own:
            raise ValueError("give card, or memory_bandwidth_gb_per_s and bf16_tflop_per_s")
        return self

    def memory_bytes(self) -> float | None:
        """Of all cards of the worker; None where the file does not say."""
        gigabytes = self.memory_gb or cards().get(self.card or "", {}).get("memory_gb")
        return None if gigabytes is None else 1e9 * gigabytes * self.cards

    def hardware(self) -> Hardware:
        """The card's published figures; what the file says of them stands before these."""
        known = cards().get(self.card or "", {})
        bandwidth = self.memory_bandwidth_gb_per_s or known["memory_bandwidth_gb_per_s"]
        compute = self.bf16_tflop_per_s or known["bf16_tflop_per_s"]
        return Hardware(
            bandwidth_bytes_per_s=1e9 * bandwidth,
            flop_per_s=1e12 * compute,
            cards=self.cards,
            bandwidth_frac=self.bandwidth_frac,
            compute_frac=self.compute_frac,
            overhead_s=self.overhead_ms / 1000,
        )


class Pools(Section):
    """`cheap` hosts draft and slim, `large` hosts full."""

    cheap: PoolFigures
    large: PoolFigures


class Link(Section):
    """`latency_ms`: of a call from the router to a worker and back."""

    latency_ms: Milliseconds = 1.0


class Fleet(Section):
    """All of it."""

    models: Models
    acceptance: AcceptanceFigures
    pools: Pools
    link: Link = Link()
    context_tokens: Positive = 1024
    decode_tokens: Positive = 4
    max_gamma: Annotated[int, Field(ge=1, le=64)] = 8
    max_block: Annotated[int, Field(ge=1, le=256)] = 16
    simulate: SimulateFigures | None = None

    def source(self) -> FleetSource:
        """What advice needs of it, without pydantic. Raises ConfigError."""
        models, pools, found = self.models, self.pools, self.acceptance
        cheap, large = pools.cheap.hardware(), pools.large.hardware()
        tiers = {
            Tier.FULL: (large, models.full.size()),
            Tier.DRAFT: (cheap, models.draft.size()),
        }
        if models.slim is not None:
            tiers[Tier.SLIM] = (cheap, models.slim.size(models.full))
        return FleetSource(
            tiers=tiers,
            rates=Rates(found.a0, found.a1, found.a2),
            hop_s=self.link.latency_ms / 1000,
            context_tokens=self.context_tokens,
            decode_tokens=self.decode_tokens,
            bounds=Bounds(self.max_gamma, self.max_block),
            prices=Prices(pools.cheap.price_per_hour, pools.large.price_per_hour),
        )


@dataclass(frozen=True, slots=True)
class FleetSource:
    """A fleet in figures: hardware and size of each tier."""

    tiers: dict[Tier, tuple[Hardware, ModelSize]]
    rates: Rates
    hop_s: float
    context_tokens: int
    decode_tokens: int
    bounds: Bounds
    prices: Prices

    def model_at(self, load: int) -> CostModel:
        """The cost model where `load` sessions share the steps: their caches are read too."""
        times = {
            tier: TierCost(forward_time(*each, load, self.context_tokens), hop_s=self.hop_s)
            for tier, each in self.tiers.items()
        }
        return CostModel(times, self.rates, self.decode_tokens)


def load_fleet(path: Path) -> Fleet:
    """ConfigError in one line that names the key."""
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"fleet {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"fleet {path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"fleet {path}: not a mapping")
    if "applications" in raw or ("pools" in raw and "models" not in raw):
        raise ConfigError(
            f"fleet {path}: this is a config, for `serve`; a fleet file has `models` and what "
            "its cards can do, as config/fleets/hundred.yaml"
        )
    try:
        return Fleet.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"fleet {path}: {explain(error)}") from error


@cache
def cards() -> dict[str, dict[str, Any]]:
    """The published figures by name, each with its source."""
    return yaml.safe_load(CARDS.read_text())


_BYTES: dict[Literal["float32", "bfloat16", "float16"], int] = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
}


def _size_of(folder: Path, weight_bits: float) -> ModelSize:
    """By the size of its safetensors and the shape in its config; keys and values of 2 bytes."""
    try:
        shape = json.loads((folder / "config.json").read_text())
        stored = _BYTES[shape.get("dtype") or shape.get("torch_dtype") or "float32"]
        heads = shape["num_attention_heads"]
        dim = shape.get("head_dim") or shape["hidden_size"] // heads
        kv_bytes = (
            2 * 2 * shape["num_hidden_layers"] * dim * shape.get("num_key_value_heads", heads)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"models: folder {folder}: no config.json of a decoder there") from error
    total = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not total:
        raise ConfigError(f"models: folder {folder}: no .safetensors file there")
    parameters = total / stored
    return ModelSize(parameters, parameters * weight_bits / 8, kv_bytes)
