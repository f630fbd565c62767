"""What `calibrate` found, as a file, and the cost model that it makes.

It knows figures; no engine, no prompt, no clock.
"""

from __future__ import annotations

import dataclasses
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from cluster.config import ConfigError, explain
from policies.advice import Bounds, Prices
from policies.costs import CostModel, Rates, TierCost
from policies.rounds import Curves, Outlook
from policies.vocabulary import Tier

FORMAT = "viaserve-calibration-1"

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Settings:
    """How it was measured. `prompts`: the file's name. `context_tokens`: of each session whose
    steps were timed. `threads`: compute threads by tier; `repeats` of each step, interleaved."""

    prompts: str
    num_prompts: int
    max_tokens: int
    temperature: float
    seed: int
    context_tokens: int
    repeats: int
    threads: dict[Tier, int]


@dataclass(frozen=True, slots=True)
class Served:
    """The config's own: model, `draft` kind ("model", "route", "ngram", "none"), the plan that
    requests get who leave it out, and the bounds of the search. `one_worker`: the draft is in
    full's worker, so that a round takes no hop but full's. `slots` and `token_budget`: of full's
    pool."""

    model: str
    fingerprint: str
    dtype: str
    draft: str
    gamma: int
    block: int
    max_gamma: Count
    max_block: Count
    decode_tokens: Count
    one_worker: bool = False
    slots: Count = 16
    token_budget: Count = 256


@dataclass(frozen=True, slots=True)
class Agreement:
    """Shares of `places` of full's own answers at which two tiers choose the same token after
    the same prefix, under shared noise: a0, a1 and a2 of DESIGN section 4. Of prompt lookup:
    the shares of its proposed tokens that were kept, of those judged.

    `round_tokens[i]`: tokens that a two-tier round commits whose draft is i + 1 tokens long,
    of rounds that had a draft.
    """

    places: int
    draft_full: float | None
    draft_slim: float | None
    slim_full: float | None
    round_tokens: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """One of full's own answers, place by place: what a round that begins there would meet.
    `drafted`: the draft before full, `screened`: before slim, `slim`: slim's own tokens before
    full; None where a tier is missing. `found`: tokens that prompt lookup proposes there, which
    take no forward; None without it."""

    prompt_tokens: Count
    length: Count
    drafted: Outlook | None
    screened: Outlook | None
    slim: Outlook | None
    found: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class StepTime:
    """One forward of `sessions` sessions with `rows` rows in all, choice included."""

    tier: Tier
    sessions: Count
    rows: Count
    seconds_p50: Seconds
    seconds_p90: Seconds


@dataclass(frozen=True, slots=True)
class Hop:
    """Seconds of a call beyond its computing: to the worker and back (`wire_s`, of an empty
    step, or `given`), and the router's and the worker's own bookkeeping (`router_s`)."""

    wire_s: Seconds
    router_s: Seconds
    source: Literal["measured", "given"]

    @property
    def seconds(self) -> float:
        """Both."""
        return self.wire_s + self.router_s


@dataclass(frozen=True, slots=True)
class Calibration:
    """One trio on one machine. `hit_frac` and `length_frac` as in Rates; `lookup_s`: of one
    prompt lookup; `prefill_token_s`: seconds of a prompt's token by tier; `prompt_tokens`: mean
    length of the prompts. `answers`: what was seen of each, for `simulate`."""

    served: Served
    settings: Settings
    agreement: Agreement
    categories: dict[str, Agreement]
    curves: Curves
    hit_frac: float
    length_frac: float
    steps: tuple[StepTime, ...]
    lookup_s: Seconds | None
    hop: Hop
    prompt_tokens: float
    prefill_token_s: dict[Tier, Seconds]
    answers: tuple[Places, ...] = ()
    format: Literal["viaserve-calibration-1"] = FORMAT

    @property
    def bounds(self) -> Bounds:
        """Of the search, as the controller's of this config."""
        return Bounds(self.served.max_gamma, self.served.max_block)

    @property
    def prices(self) -> Prices:
        """A measurement knows none."""
        return Prices()

    def model_at(self, load: int) -> CostModel:
        """The cost model where `load` sessions share the steps."""
        times: dict[Tier, TierCost] = {}
        for tier in Tier:
            if steps := [step for step in self.steps if step.tier is tier]:
                here = self.served.one_worker and tier is not Tier.FULL
                hop_s = 0.0 if here else self.hop.seconds
                times[tier] = TierCost(forward_time(steps, load), hop_s=hop_s)
        if self.lookup_s is not None:
            # Without a model it is the router's: no call; beside slim the call's way is slim's.
            behind = times.get(Tier.DRAFT, TierCost(_nothing))
            times[Tier.DRAFT] = replace(behind, call_s=self.lookup_s)
        found = self.agreement
        rates = Rates(
            draft_full=found.draft_full or 0.0,
            draft_slim=found.draft_slim or 0.0,
            slim_full=found.slim_full or 0.0,
            hit_frac=self.hit_frac,
            length_frac=self.length_frac,
        )
        return CostModel(times, rates, self.served.decode_tokens, curves=self.curves)


def forward_time(steps: Sequence[StepTime], load: int) -> Callable[[float], float]:
    """Seconds of a forward as a function of its rows, where `load` sessions share it: linear
    between what was measured, in rows and in sessions; beyond, more rows of as many sessions.

    More rows never take less: where a noisy machine says so, neighbours are averaged.
    """
    tables: dict[int, list[tuple[int, float]]] = {}
    for step in sorted(steps, key=lambda step: (step.sessions, step.rows)):
        tables.setdefault(step.sessions, []).append((step.rows, step.seconds_p50))
    tables = {sessions: _rising(table) for sessions, table in tables.items()}
    sizes = sorted(tables)
    at = bisect_right(sizes, load)
    low = sizes[max(at - 1, 0)]
    high = sizes[min(at, len(sizes) - 1)]
    share = (load - low) / (high - low) if high > low and load > low else 0.0
    return partial(_blend, tables[low], tables[high], share)


def _rising(table: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The nearest seconds that do not fall with the rows (pool adjacent violators)."""
    pools: list[list[float]] = []
    for _, seconds in table:
        pools.append([seconds])
        while len(pools) > 1 and fmean(pools[-2]) > fmean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    level = [fmean(pool) for pool in pools for _ in pool]
    return [(rows, seconds) for (rows, _), seconds in zip(table, level, strict=True)]


def _blend(
    low: Sequence[tuple[int, float]], high: Sequence[tuple[int, float]], share: float, rows: float
) -> float:
    first = _on_line(low, rows)
    return first if share == 0.0 else first + share * (_on_line(high, rows) - first)


def _on_line(table: Sequence[tuple[int, float]], rows: float) -> float:
    """Linear between the points and after the last; level before the first."""
    if rows <= table[0][0] or len(table) == 1:
        return table[0][1]
    at = min(bisect_right(table, rows, key=lambda point: point[0]), len(table) - 1)
    (x0, y0), (x1, y1) = table[at - 1], table[at]
    slope = (y1 - y0) / (x1 - x0)
    return y0 + slope * (rows - x0)


def _nothing(rows: float) -> float:
    return 0.0


_ADAPTER: TypeAdapter[Calibration] = TypeAdapter(Calibration)


def write(found: Calibration, path: Path) -> None:
    """As JSON. Raises OSError."""
    path.write_text(to_json(found, indent=2) + "\n")


def to_json(found: Calibration, indent: int | None = None) -> str:
    """All of it; one line without `indent`."""
    return json.dumps(dataclasses.asdict(found), indent=indent, ensure_ascii=False)


def read(path: Path) -> Calibration:
    """ConfigError in one line where it is no calibration of this format."""
    try:
        raw = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"calibration {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"calibration {path}: not JSON") from error
    if not isinstance(raw, Mapping) or raw.get("format") != FORMAT:
        raise ConfigError(f"calibration {path}: format must be {FORMAT}")
    try:
        return _ADAPTER.validate_python(raw)
    except ValidationError as error:
        raise ConfigError(f"calibration {path}: {explain(error)}") from error
