"""Measures what a step costs here: of the whole model, and of the part that every slim has.

As it is served: packed linears, our attention, a context of some hundred tokens.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from actors.engine.int8 import int8_twin
from actors.engine.loader import DTYPES, load_full, slim_of
from actors.engine.packed import pack_linears
from actors.engine.route import ModelError, Route
from actors.engine.seam import Context, Extend
from actors.engine.transformers_engine import TransformersEngine
from cluster.trio.routes.judge import Bench
from cluster.trio.routes.objective import Steps, StepTimes
from policies.vocabulary import SamplingParams, SamplingSpec

_CONTEXT = 256
_STEPS = 12
_NOISE_S = 1e-6


def measure_steps(bench: Bench, int8: bool = False) -> Steps:
    """On an otherwise quiet machine; medians of some steps each, after the first two. `int8`:
    with such weights as well. Raises ModelError."""
    torch.set_num_threads(bench.threads)
    full = load_full(bench.model_dir, DTYPES[bench.dtype], torch.device(bench.device))
    twin = int8_twin(full) if int8 else None
    return Steps(_times(full), None if twin is None else _times(twin))


def _times(full: PreTrainedModel) -> StepTimes:
    layers = full.config.num_hidden_layers
    route = Route(model_fingerprint="", num_layers=layers, kept_layers=(0, layers - 1))
    ends = slim_of(full, route, None)
    pack_linears([full])
    (full_1, full_8), (ends_1, ends_8) = _steps_s(full), _steps_s(ends)
    part = 2 / (layers - 2)
    heads = (max(ends_1 - part * (full_1 - ends_1), _NOISE_S), ends_8 - part * (full_8 - ends_8))
    return StepTimes(full_1, full_8, heads[0], max(heads[1], _NOISE_S))


def read_steps(path: Path, int8: bool = False) -> Steps:
    """Step times from a JSON file: StepTimes' fields, those of int8 weights under "int8" where
    `int8` asks for them; others may lie beside. ModelError where it holds none."""
    try:
        steps = steps_of(json.loads(path.read_text()), int8)
    except (OSError, ValueError, TypeError, KeyError) as error:
        wanted = ", ".join(StepTimes.__annotations__) + (", and int8 with the same" if int8 else "")
        raise ModelError(f"--calibration {path}: give JSON with {wanted}: {error!r}") from None
    if any(min(asdict(times).values()) <= 0 for times in (steps.dense, steps.of(int8))):
        raise ModelError(f"--calibration {path}: times must be above 0")
    return steps


def steps_of(fields: Mapping[str, Any], int8: bool) -> Steps:
    """What `fields_of` wrote. KeyError, TypeError or ValueError where something is missing."""

    def times(fields: Mapping[str, Any]) -> StepTimes:
        return StepTimes(**{name: float(fields[name]) for name in StepTimes.__annotations__})

    return Steps(times(fields), times(fields["int8"]) if int8 else None)


def fields_of(steps: Steps) -> dict[str, Any]:
    """The fields of a JSON file of step times."""
    more = {} if steps.int8 is None else {"int8": asdict(steps.int8)}
    return asdict(steps.dense) | more


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
