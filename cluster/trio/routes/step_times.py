"""Measures what a step costs here: of the whole model, and of the part that every slim has.

As it is served: packed linears, our attention, a context of some hundred tokens.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from actors.engine.loader import DTYPES, load_full, slim_of
from actors.engine.packed import pack_linears
from actors.engine.route import ModelError, Route
from actors.engine.seam import Context, Extend
from actors.engine.transformers_engine import TransformersEngine
from cluster.trio.routes.judge import Bench
from cluster.trio.routes.objective import StepTimes
from policies.vocabulary import SamplingParams, SamplingSpec

_CONTEXT = 256
_STEPS = 12
_NOISE_S = 1e-6


def measure_steps(bench: Bench) -> StepTimes:
    """On an otherwise quiet machine; medians of some steps each, after the first two."""
    torch.set_num_threads(bench.threads)
    full = load_full(bench.model_dir, DTYPES[bench.dtype], torch.device(bench.device))
    layers = full.config.num_hidden_layers
    route = Route(model_fingerprint="", num_layers=layers, kept_layers=(0, layers - 1))
    ends = slim_of(full, route, None)
    pack_linears([full])
    (full_1, full_8), (ends_1, ends_8) = _steps_s(full), _steps_s(ends)
    part = 2 / (layers - 2)
    heads = (max(ends_1 - part * (full_1 - ends_1), _NOISE_S), ends_8 - part * (full_8 - ends_8))
    return StepTimes(full_1, full_8, heads[0], max(heads[1], _NOISE_S))


def read_steps(path: Path) -> StepTimes:
    """Step times from a JSON file with StepTimes' fields, others beside them; ModelError where
    it holds none."""
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
        times = StepTimes(**{name: float(fields[name]) for name in StepTimes.__annotations__})
    except (OSError, ValueError, TypeError, KeyError) as error:
        wanted = ", ".join(StepTimes.__annotations__)
        raise ModelError(f"--calibration {path}: give JSON with {wanted}: {error!r}") from None
    if min(asdict(times).values()) <= 0:
        raise ModelError(f"--calibration {path}: times must be above 0")
    return times


def _steps_s(model: PreTrainedModel) -> tuple[float, float]:
    """Seconds of a step of 1 row and of 8 rows of one session."""
    rows = [1] * _STEPS + [8] * _STEPS
    engine = TransformersEngine(model, num_slots=1, slot_tokens=2 * _CONTEXT, token_budget=_CONTEXT)
    tokens = [(i * 7919 + 13) % model.config.vocab_size for i in range(_CONTEXT + sum(rows))]
    spec = SamplingSpec(SamplingParams(temperature=0.0), seed=0, choice=0, prompt_len=1)
    context = Context("steps", spec, tokens=tokens)
    end = _CONTEXT
    engine.extend([Extend(context, end, 1)])
    taken: list[float] = []
    for count in rows:
        end += count
        begin = time.perf_counter()
        engine.extend([Extend(context, end, count)])
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[2:_STEPS]), statistics.median(taken[_STEPS + 2 :])
