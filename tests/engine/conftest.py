"""Toy models on disk and in memory, engines that must end empty, and one thread for torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from actors.engine.loader import load_full
from actors.engine.transformers_engine import TransformersEngine
from tests.engine.toys import ARCHITECTURES, CPU, make_engine, save_toy

LoadToy = Callable[..., PreTrainedModel]
MakeEngine = Callable[..., TransformersEngine]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Toy products are too small to share, and threads that spin hold up other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy_dirs(tmp_path_factory) -> dict[str, Path]:
    """One saved toy model per architecture."""
    return {a: save_toy(tmp_path_factory.mktemp(a), a) for a in ARCHITECTURES}


@pytest.fixture(scope="session")
def load_toy(toy_dirs) -> LoadToy:
    """(architecture, dtype) -> the toy as the server loads it; not to be changed."""
    return functools.cache(lambda name, dtype=torch.float32: load_full(toy_dirs[name], dtype, CPU))


@pytest.fixture
def engine_of() -> Iterator[MakeEngine]:
    """Makes engines; when the test is over no session may be left in any."""
    made: list[TransformersEngine] = []

    def make(model: PreTrainedModel, **sizes: Any) -> TransformersEngine:
        made.append(make_engine(model, **sizes))
        return made[-1]

    yield make
    for engine in made:
        engine.check_integrity()
        stats = engine.stats()
        assert (stats.sessions, stats.cached_tokens, stats.matchers) == (0, 0, 0)
