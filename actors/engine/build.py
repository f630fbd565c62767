"""Builds the engines of one worker from what its tiers are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from actors.engine.attention import KEY_MULTIPLE
from actors.engine.feature_engine import FeatureEngine
from actors.engine.grammar import GrammarCompiler, Grammars
from actors.engine.int8 import quantise_linears
from actors.engine.lean import LeanDecoder, has_lean, make_lean
from actors.engine.loader import (
    DTYPES,
    load_config,
    load_full,
    load_sliced,
    readable,
    slim_of,
)
from actors.engine.lookup_first import LookupFirst
from actors.engine.ngram import NgramEngine
from actors.engine.packed import pack_linears
from actors.engine.reader import load_reader
from actors.engine.route import ModelError, Route, fingerprint, read_route
from actors.engine.seam import Engine
from actors.engine.shortlist import read_shortlist
from actors.engine.transformers_engine import TransformersEngine
from policies.vocabulary import Tier

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class TierSource:
    """Where a tier's tokens come from: a model folder, a route of it, or prompt lookup.

    `model_dir` alone: the whole model. With `route`: its routed layers. Neither: n-gram, with
    suffixes of `ngram_longest` to `ngram_shortest` tokens; with `lookup` that comes first and
    the model goes on. `stop_below`: see TransformersEngine.
    """

    model_dir: str | None = None
    route: str | None = None
    ngram_longest: int = 4
    ngram_shortest: int = 2
    lookup: bool = False
    stop_below: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """The tiers that one worker hosts, and the size of their caches.

    `vocab_size`: of the full model, wherever that is; 0 leaves each model its own.
    """

    tiers: dict[Tier, TierSource]
    dtype: str
    device: str
    num_slots: int
    slot_tokens: int
    token_budget: int
    vocab_size: int = 0

    @property
    def room_tokens(self) -> int:
        """Of a slot: however short the sessions, the check of row invariance needs some."""
        return max(self.slot_tokens, 2 * KEY_MULTIPLE)


def build_engines(spec: EngineSpec) -> dict[Tier, Engine]:
    """Load what the worker hosts; a slim beside its full model shares the weights."""
    device = torch.device(spec.device)
    dtype = DTYPES[spec.dtype]
    full = spec.tiers.get(Tier.FULL)
    engines: dict[Tier, Engine] = {}
    models: dict[Tier, PreTrainedModel] = {}
    made: dict[Tier, TransformersEngine] = {}
    for tier in (Tier.FULL, Tier.SLIM, Tier.DRAFT):
        source = spec.tiers.get(tier)
        if source is None:
            continue
        if source.model_dir is None:
            engines[tier] = NgramEngine(source.ngram_longest, source.ngram_shortest)
            continue
        beside = full is not None and source.model_dir == full.model_dir
        shared = models.get(Tier.FULL) if beside else None
        models[tier] = _load(source, dtype, device, shared, lean=tier is Tier.DRAFT)
    pack_linears(models.values())
    sizes: dict[str, Any] = {
        "num_slots": spec.num_slots,
        "slot_tokens": spec.room_tokens,
        "token_budget": spec.token_budget,
        "vocab_size": spec.vocab_size or None,
        "grammars": grammars_of(spec),
    }
    reads = Tier.DRAFT in models and _reads(models[Tier.DRAFT])
    for tier, model in models.items():
        draft = tier is Tier.DRAFT
        source = spec.tiers[tier]
        if draft and reads:
            engine = FeatureEngine(model, made[Tier.FULL], stop_below=source.stop_below, **sizes)
        else:
            engine = TransformersEngine(
                model,
                row_invariant=not draft,
                keep_features=reads and tier is Tier.FULL,
                stop_below=source.stop_below,
                **sizes,
            )
        made[tier] = engine
        lengths = (source.ngram_longest, source.ngram_shortest)
        engines[tier] = LookupFirst(engine, *lengths) if source.lookup else engine
    return engines


def _reads(draft: PreTrainedModel) -> bool:
    """Whether a draft reads full's hidden states."""
    return isinstance(draft.model, LeanDecoder) and draft.model.reader is not None


def grammars_of(spec: EngineSpec) -> Grammars:
    """The grammars that all engines of a worker share."""
    return Grammars(lambda: _compiler_of(spec))


def _compiler_of(spec: EngineSpec) -> GrammarCompiler:
    """For the tokenizer that all tiers share (`check_same_tokenizer`), from any of them."""
    model_dir = next(s.model_dir for s in spec.tiers.values() if s.model_dir is not None)
    tokenizer = _tokenizer(Path(model_dir))
    return GrammarCompiler(tokenizer.backend_tokenizer.to_str(), tokenizer.eos_token_id)


def _load(
    source: TierSource,
    dtype: torch.dtype,
    device: torch.device,
    full: PreTrainedModel | None,
    lean: bool,
) -> PreTrainedModel:
    """`lean`: with a LeanDecoder where the model is of a kind that has one and is not `full`."""
    assert source.model_dir is not None
    model_dir = Path(source.model_dir)
    if source.route is None and full is not None:
        return full
    if source.route is None:
        model = load_full(model_dir, dtype, device)
        if lean:
            make_lean(model)
        return model
    cut = checked_route(model_dir, Path(source.route))
    route = cut.route
    own_dtype = DTYPES[route.dtype] if route.dtype else dtype
    if full is not None and own_dtype == dtype and route.weights is None:
        model = slim_of(full, route, cut.delta, cut.shortlist)
    else:
        model = load_sliced(model_dir, route, own_dtype, device, cut.delta, cut.shortlist)
    if lean:
        make_lean(model)
        if cut.reader is not None:
            assert full is not None, "preflight"
            width, eps = model.config.hidden_size, model.config.rms_norm_eps
            model.model.reader = load_reader(cut.reader, width, eps, own_dtype, device)
    if route.weights == "int8":
        quantise_linears(model)
    return model


@dataclass(frozen=True, slots=True, eq=False)
class CheckedRoute:
    """A route that fits its model, its delta file, the ids (S,) of its shortlist, and the file
    of its reader."""

    route: Route
    delta: Path | None
    shortlist: torch.Tensor | None
    reader: Path | None = None


def checked_route(model_dir: Path, path: Path) -> CheckedRoute:
    """The route and what lies beside it, checked against the model."""
    route = read_route(path)
    config = load_config(model_dir)
    route.check(fingerprint(model_dir), config.num_hidden_layers, path)
    beside = {"delta": route.delta, "shortlist": route.shortlist, "reader": route.reader}
    files = {key: path.parent / name for key, name in beside.items() if name is not None}
    for key, file in files.items():
        if not file.is_file():
            raise ModelError(f"route {path}: {key} {file.name} is not beside it")
    shortlist = files.get("shortlist")
    ids = None if shortlist is None else read_shortlist(shortlist, config.vocab_size)
    if (reader := files.get("reader")) is not None:
        if not has_lean(config):
            raise ModelError(f"route {path}: reads: {config.model_type} has no such drafts yet")
        load_reader(reader, config.hidden_size, config.rms_norm_eps, torch.float32, _CPU)
    return CheckedRoute(route, files.get("delta"), ids, reader)


def check_same_tokenizer(full_dir: Path, draft_dir: Path) -> None:
    """ModelError unless both models number the same tokens the same way."""
    if full_dir == draft_dir:
        return
    ours, theirs = _vocabulary(full_dir), _vocabulary(draft_dir)
    if ours == theirs:
        return
    differ = sorted(t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t))
    raise ModelError(
        f"draft {draft_dir}: its tokenizer differs from the full model's in {len(differ)} tokens"
        f" ({differ[0]!r}: {theirs.get(differ[0])} there, {ours.get(differ[0])} in the full"
        " model); a draft must share the tokenizer"
    )


def _vocabulary(model_dir: Path) -> dict[str, int]:
    return _tokenizer(model_dir).get_vocab()


def _tokenizer(model_dir: Path) -> Any:
    with readable(f"model {model_dir}: tokenizer"):
        return AutoTokenizer.from_pretrained(
            model_dir, trust_remote_code=False, local_files_only=True
        )
