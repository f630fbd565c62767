"""The law of one token: g(x) = argmax over kept ids of processed logits / T + G.

numpy reference and oracle of the torch sampler; order of the rules as in vLLM: penalties,
logit bias, grammar, temperature, min-p, top-k, top-p. Ties of logits are kept or dropped
together, ties of the final score go to the lowest id. What a grammar forbids has logit -inf:
no later rule counts it, and it is never kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from policies.noise import gumbel
from policies.vocabulary import SamplingParams, SamplingSpec, TokenLogprobs, Verdict

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]


def penalise(
    logits: F32, params: SamplingParams, prompt: Sequence[int], output: Sequence[int]
) -> F32:
    """Apply the penalties of the tokens seen and the logit bias to one row, shape (V,)."""
    logits = logits.astype(np.float32, copy=True)
    if params.repetition_penalty != 1.0:
        seen = np.unique(np.asarray([*prompt, *output], dtype=np.int64))
        penalty = np.float32(params.repetition_penalty)
        row = logits[seen]
        logits[seen] = np.where(row > 0, row / penalty, row * penalty)
    if params.presence_penalty or params.frequency_penalty:
        ids, counts = np.unique(np.asarray(output, dtype=np.int64), return_counts=True)
        logits[ids] -= np.float32(params.frequency_penalty) * counts.astype(np.float32)
        logits[ids] -= np.float32(params.presence_penalty)
    for token, bias in params.logit_bias:
        logits[token] += np.float32(bias)
    return logits


def masked(row: F32, allowed: Mask | None) -> F32:
    """The row with -inf where it is not allowed, both of shape (V,); None allows every id."""
    return row if allowed is None else np.where(allowed, row, np.float32(-np.inf))


def kept_ids(scaled: F32, params: SamplingParams) -> I64:
    """The ids that min-p, top-k and top-p leave of one row of logits / T, ascending."""
    keep = scaled > -np.inf
    if params.min_p > 0.0:
        keep &= scaled >= scaled.max() + np.float32(np.log(params.min_p))
    if 0 < params.top_k < scaled.size:
        keep &= scaled >= np.partition(scaled, -params.top_k)[-params.top_k]
    if params.top_p < 1.0:
        ids = np.flatnonzero(keep)
        order = ids[np.argsort(-scaled[ids], kind="stable")]
        weight = np.exp((scaled[order] - scaled[order[0]]).astype(np.float64))
        before = np.cumsum(weight) - weight
        inside = before < params.top_p * weight.sum()
        last = scaled[order[np.flatnonzero(inside)[-1]]]
        keep &= scaled >= last
    return np.flatnonzero(keep)


def processed_distribution(
    logits: F32, params: SamplingParams, allowed: Mask | None = None
) -> NDArray[np.float64]:
    """The distribution that one row (penalties already applied) is sampled from, shape (V,).

    `allowed`: the ids that the session's grammar leaves, shape (V,).
    """
    logits = masked(logits, allowed)
    result = np.zeros(logits.shape, dtype=np.float64)
    if _is_settled(logits, params):
        result[int(np.argmax(logits))] = 1.0
        return result
    scaled = logits / np.float32(params.temperature)
    ids = kept_ids(scaled, params)
    weight = np.exp((scaled[ids] - scaled[ids].max()).astype(np.float64))
    result[ids] = weight / weight.sum()
    return result


def judge(
    logits: F32,
    params: SamplingParams,
    drafted: int,
    chosen: int,
    allowed: Mask | None = None,
) -> Verdict:
    """The verdict of one row (penalties already applied) on a drafted id, shape (V,)."""
    if params.temperature == 0.0:
        params = replace(params, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    probability = processed_distribution(logits, params, allowed)
    second, highest = np.partition(probability, -2)[-2:]
    with np.errstate(divide="ignore"):
        logarithm = np.log(probability)
    return Verdict(
        ratio=float(probability[drafted] / highest),
        margin=float(highest - second),
        logprob=float(logarithm[drafted]),
        own_logprob=float(logarithm[chosen]),
    )


def token_logprobs(logits: F32, chosen: int, num_top: int) -> TokenLogprobs:
    """Of one row of raw logits, shape (V,)."""
    wide = logits.astype(np.float64)
    logarithm = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
    best = np.argsort(-logarithm, kind="stable")[:num_top]
    return TokenLogprobs(
        float(logarithm[chosen]), tuple((int(i), float(logarithm[i])) for i in best)
    )


def choose(
    logits: F32, spec: SamplingSpec, tokens: Sequence[int], allowed: Mask | None = None
) -> int:
    """g(x) for one row of raw logits, shape (V,), after the ids `tokens`; DESIGN section 2.

    `allowed`: the ids that the session's grammar leaves, shape (V,).
    """
    params = spec.params
    row = penalise(logits, params, tokens[: spec.prompt_len], tokens[spec.prompt_len :])
    row = masked(row, allowed)
    if _is_settled(row, params):
        return int(np.argmax(row))
    scaled = row / np.float32(params.temperature)
    ids = kept_ids(scaled, params)
    score = scaled[ids].astype(np.float64) + gumbel(spec.seed, spec.choice, len(tokens), ids)
    return int(ids[int(np.argmax(score))])


def _is_settled(row: F32, params: SamplingParams) -> bool:
    """Plain argmax: at temperature 0, and where nothing is possible (a draft that lacks every
    allowed id)."""
    return params.temperature == 0.0 or bool(row.max() == -np.inf)
