"""One server for all tests of this folder that do not need one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.server import Server, serving

# A worker that replaces a killed one takes minutes to load on a busy machine.
SETTINGS = ["model.context=1024", "router.max_queued=8", "router.worker_wait_s=600"]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving(SETTINGS) as running:
        yield running
