"""Laws of the exchange: every rank gets the same sum, in rank order, whatever the size."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from actors.engine.ranks.exchange import Exchange, GroupExchange, in_order
from actors.engine.ranks.shared_memory import SharedMemoryExchange, shared_bytes

# Places hold a MiB: within one, at its end, and over several.
SHAPES = ((4, 96), (3, 7), (1, 1 << 18), (5, 100_003))


def parts_of(shape: tuple[int, ...], size: int, dtype: torch.dtype) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(sum(shape))
    return [torch.randn(shape, generator=rng).mul_(1e3).to(dtype) for _ in range(size)]


@pytest.fixture(params=[2, 3])
def exchanges(request, tmp_path: Path) -> list[SharedMemoryExchange]:
    """Ranks as threads; the memory between them is the same."""
    path = tmp_path / "shared"
    path.write_bytes(bytes(shared_bytes(request.param)))
    return [SharedMemoryExchange(path, rank, request.param) for rank in range(request.param)]


def everywhere(exchanges: list[Any], verb: Callable[[int, Exchange], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(exchanges)) as ranks:
        return list(ranks.map(verb, range(len(exchanges)), exchanges))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_rank_gets_the_sum_in_rank_order(exchanges, dtype):
    for shape in SHAPES * 2:
        parts = parts_of(shape, len(exchanges), dtype)
        sums = everywhere(exchanges, lambda rank, e, parts=parts: e.total(parts[rank]))
        expected = functools.reduce(torch.add, (part.float() for part in parts)).to(dtype)
        assert all(torch.equal(found, expected) for found in sums), shape


def test_the_order_matters_to_the_bits():
    """Or the law above would say nothing."""
    parts = parts_of((4, 96), 3, torch.float32)
    assert not torch.equal(in_order(parts), in_order(parts[::-1]))


def test_parts_of_any_widths_lie_side_by_side_on_rank_0(exchanges):
    for rows, widths in ((4, (3, 1, 2)), (9, (40_000, 1, 25_001)), (1, (7, 300_000, 8))):
        widths = widths[: len(exchanges)]
        parts = [torch.randn(rows, width) for width in widths]
        found = everywhere(
            exchanges,
            lambda rank, e, parts=parts, widths=widths: e.side_by_side(parts[rank], widths),
        )
        assert torch.equal(found[0], torch.cat(parts, -1))
        assert all(map(torch.equal, found[1:], parts[1:]))


@pytest.mark.slow
def test_a_process_group_gives_the_same_bits(tmp_path: Path):
    context: Any = multiprocessing.spawn(in_group, (3, tmp_path), nprocs=3, join=False)
    while not context.join():
        pass
    for shape in SHAPES:
        parts = parts_of(shape, 3, torch.float32)
        for rank in range(3):
            total, beside = torch.load(tmp_path / f"{rank}-{shape}.pt")
            assert torch.equal(total, in_order(parts))
            cut = [part[:, : rank + 1] for rank, part in enumerate(parts)]
            assert torch.equal(beside, torch.cat(cut, -1) if rank == 0 else cut[rank])


def in_group(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=120),
    )
    exchange = GroupExchange(distributed.group.WORLD, rank, size)
    for shape in SHAPES:
        part = parts_of(shape, size, torch.float32)[rank]
        beside = exchange.side_by_side(part[:, : rank + 1], range(1, size + 1))
        torch.save((exchange.total(part), beside), folder / f"{rank}-{shape}.pt")
