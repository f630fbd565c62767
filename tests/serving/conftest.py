"""One server for all tests of this folder that do not need one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.server import Server, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving(["model.context=1024", "router.max_queued=8"]) as running:
        yield running
