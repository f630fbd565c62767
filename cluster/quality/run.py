"""The run: every arm's answers first, then their scores, so that scoring slows no answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import torch
from transformers.utils.logging import disable_progress_bar

from actors.engine.route import fingerprint
from actors.ingress.text import TextCodec
from cluster.quality.figures import Key, arm_figures, key_of
from cluster.quality.report import QualityReport
from cluster.quality.scorer import FullModel, Score
from infra.bench import BenchError, BenchOptions
from infra.bench.endpoint import connect, describe
from infra.bench.report import told_options
from infra.bench.run import Saw, measure
from infra.bench.sample import Sample, TurnResult


class Judge(Protocol):
    """See FullModel."""

    def score(
        self, prompt: Sequence[int], answer: Sequence[int], temperature: float, seed: int
    ) -> Score: ...


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """With which full model. `dtype` empty: the server's. `threads`: torch's."""

    model_dir: Path
    dtype: str = ""
    device: str = "cpu"
    threads: int = 1


Encode = Callable[[str], list[int]]
"""A user's message to the ids of its prompt."""

MakeJudge = Callable[[ScoringOptions, int], Judge]
"""From options, and the longest session in tokens."""


async def run_quality(
    options: BenchOptions,
    scoring: ScoringOptions,
    transport: httpx.AsyncBaseTransport | None = None,
    *,
    encode: Encode | None = None,
    make_judge: MakeJudge | None = None,
    saw: Saw = lambda done, total, mode: None,
    scored: Callable[[int, int], None] = lambda done, total: None,
) -> QualityReport:
    """Measure and score; `saw` and `scored` are told how far that is. Raises BenchError or
    ModelError where it cannot."""
    scoring = await _checked(options, scoring, transport)
    encode = encode or _chat_encoder(scoring.model_dir)
    model, results = await measure(options, transport, saw)
    samples = [sample for result in results for sample in result.samples]
    scores = _score(options, scoring, samples, encode, make_judge or _full_model, scored)
    groups: dict[str, list[TurnResult]] = {mode: [] for mode in options.modes}
    for result in results:
        groups[result.turn.mode].append(result)
    failures = [sample for sample in samples if sample.error]
    told = {"model_dir": str(scoring.model_dir), "dtype": scoring.dtype, "device": scoring.device}
    return QualityReport(
        options=told_options(options, model) | {"scored_by": told},
        arms=tuple(
            arm_figures(groups[mode], groups[options.modes[0]], scores) for mode in options.modes
        ),
        errors=len(failures),
        first_error=f"{failures[0].question.mode}: {failures[0].error}" if failures else "",
    )


def _score(
    options: BenchOptions,
    scoring: ScoringOptions,
    samples: Sequence[Sample],
    encode: Encode,
    make_judge: MakeJudge,
    scored: Callable[[int, int], None],
) -> dict[Key, Score]:
    """Each distinct answer once. Raises BenchError where an answer came without its ids."""
    good = [sample for sample in samples if sample.ok]
    if any(len(sample.token_ids) != sample.tokens for sample in good):
        raise BenchError("the server gives no token ids for its answers: is it an older one?")
    prompts = {s.question.prompt.id: encode(s.question.prompt.text) for s in good}
    answers = dict.fromkeys(key_of(sample) for sample in good)
    longest = max((len(prompts[prompt]) + len(ids) for prompt, ids in answers), default=1)
    judge = make_judge(scoring, longest)
    scores: dict[Key, Score] = {}
    for prompt, ids in answers:
        scores[prompt, ids] = judge.score(prompts[prompt], ids, options.temperature, options.seed)
        scored(len(scores), len(answers))
    return scores


async def _checked(
    options: BenchOptions, scoring: ScoringOptions, transport: httpx.AsyncBaseTransport | None
) -> ScoringOptions:
    """With the server's dtype. Raises BenchError where it serves other weights."""
    served = await _version(options, transport)
    own = fingerprint(scoring.model_dir)
    if own != served["fingerprint"]:
        raise BenchError(
            f"--model {scoring.model_dir} is not the model that {options.url} serves: "
            f"fingerprint {own} here, {served['fingerprint']} there"
        )
    dtype = scoring.dtype or served["dtype"]
    return replace(scoring, dtype=dtype)


async def _version(
    options: BenchOptions, transport: httpx.AsyncBaseTransport | None
) -> dict[str, Any]:
    async with connect(options, transport) as client:
        url = str(client.base_url).removesuffix("v1/") + "version"
        try:
            answer = await client.get(url)
            facts = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BenchError(f"no server answers at {url}: {describe(error)}") from error
        except ValueError:
            facts = None
    if not isinstance(facts, dict) or not {"fingerprint", "dtype"} <= facts.keys():
        raise BenchError(f"{url} is not a viaserve's: it tells no fingerprint and dtype")
    return facts


def _chat_encoder(model_dir: Path) -> Encode:
    codec = TextCodec.load(str(model_dir))
    return lambda text: codec.chat([{"role": "user", "content": text}])


def _full_model(scoring: ScoringOptions, longest: int) -> Judge:
    torch.set_num_threads(scoring.threads)
    disable_progress_bar()
    return FullModel(scoring.model_dir, scoring.dtype, scoring.device, longest)
