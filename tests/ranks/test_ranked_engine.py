"""Laws of a model over ranks: it says what the whole model says, a row's bits do not depend on
its company, and a rank that dies takes its group with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.engine.invariance import rows_are_invariant
from actors.engine.seam import EngineStats, Extend
from actors.engine.transformers_engine import TransformersEngine
from tests.engine.test_row_invariance import alone, in_a_crowd
from tests.engine.toys import VOCAB, context, save_toy, text
from tests.ranks.groups import LIMIT_S, Leader, engine_spec, rank_group, whole_engine

LENGTHS = (3, 40, 127, 131, 257, 300)
THREE_KEY_HEADS = {"num_key_value_heads": 3}
GROUPS = {
    # Key/value heads by rank: 2 and 1, then one each; Gemma2 has softcaps and a window.
    "llama-2": ("llama", THREE_KEY_HEADS, 2),
    "qwen3-3": ("qwen3", THREE_KEY_HEADS, 3),
    "gemma2-3": ("gemma2", THREE_KEY_HEADS, 3),
}


@pytest.fixture(
    scope="module",
    params=[
        "llama-2",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma2-3", "qwen3-3")),
    ],
)
def ranked(request, tmp_path_factory) -> Iterator[tuple[Path, int, Leader]]:
    architecture, heads, size = GROUPS[request.param]
    path = save_toy(tmp_path_factory.mktemp(architecture), architecture, **heads)
    with rank_group(engine_spec(path), size) as leader:
        yield path, size, leader


# Run in rank 0's process.


def logits_of(engine: TransformersEngine, tokens: list[int], rows: int) -> np.ndarray:
    return alone(engine, tokens, rows).numpy()


def company_changes_no_bit(engine: TransformersEngine, seed: int) -> list[int]:
    """Lengths of the texts for which it did."""
    rng = np.random.default_rng(seed)
    lengths = rng.permutation(LENGTHS)
    texts = [text(int(n), int(n)) for n in lengths]
    rows = [min(len(t) - 1, 9) for t in texts]
    expected = [alone(engine, t, n) for t, n in zip(texts, rows, strict=True)]
    got = in_a_crowd(engine, texts, [len(t) - n for t, n in zip(texts, rows, strict=True)], rng)
    same = map(torch.equal, got, expected)
    return [int(n) for n, is_same in zip(lengths, same, strict=True) if not is_same]


def evicted_sessions_come_back_the_same(engine: TransformersEngine) -> bool:
    """More sessions than slots take turns; each ends with the bits that it has alone."""
    count = engine.stats().slots + 2
    contexts = [context(f"s{i}", text(i, 20)) for i in range(count)]
    for length, one in itertools.product((7, 12, 20), contexts):
        engine.truncate(one.session_id, length - 3)
        [rows] = engine.logits([Extend(one, length, 4)])
        if not torch.equal(torch.stack(rows), alone(engine, one.tokens[:length], 4)):
            return False
    engine.check_integrity(contexts)
    for one in contexts:
        engine.release(one.session_id)
    return True


def stats_of(engine: TransformersEngine) -> EngineStats:
    return engine.stats()


def start_up_check(engine: TransformersEngine) -> bool:
    return rows_are_invariant(engine, VOCAB)


def compute_until_killed(engine: TransformersEngine) -> None:
    one = context("endless", text(0, 30))
    while True:
        engine.extend([Extend(one, 30, 4)])


# The laws


def test_the_ranks_say_what_the_whole_model_says(ranked):
    path, _, leader = ranked
    tokens = text(5, 300)
    expected = logits_of(whole_engine(engine_spec(path)), tokens, 300)
    np.testing.assert_allclose(leader.ask(logits_of, tokens, 300), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(2))
def test_company_changes_no_bit(ranked, seed):
    assert ranked[2].ask(company_changes_no_bit, seed) == []


def test_the_start_up_check_agrees(ranked):
    assert ranked[2].ask(start_up_check)


def test_evicted_and_truncated_sessions_come_back_the_same(ranked):
    assert ranked[2].ask(evicted_sessions_come_back_the_same)


def test_a_rank_holds_its_own_heads_alone(ranked):
    path, size, leader = ranked
    whole = whole_engine(engine_spec(path)).stats()
    part = leader.ask(stats_of)
    first_heads = -(-3 // size)
    assert part.kv_bytes_per_token * 3 == whole.kv_bytes_per_token * first_heads
    assert part.weight_bytes < whole.weight_bytes
    assert (part.sessions, part.cached_tokens) == (0, 0)


def test_ranks_of_one_host_share_memory_and_leave_no_file(ranked):
    assert ranked[2].exchange == "SharedMemoryExchange"
    assert list(Path("/dev/shm").glob("viaserve-ranks-*")) == []


@pytest.mark.parametrize(
    ("victim", "busy"), [pytest.param(0, False, marks=pytest.mark.slow), (2, True)]
)
def test_a_dead_rank_takes_its_group_with_it(tmp_path, victim, busy):
    path = save_toy(tmp_path, "llama", num_key_value_heads=3, num_hidden_layers=1)
    with rank_group(engine_spec(path), 3) as leader:
        if busy:
            leader.send(compute_until_killed)
        leader.processes[victim].kill()
        for process in leader.processes:
            process.join(LIMIT_S)
            assert process.exitcode == (-9 if process is leader.processes[victim] else 1)
