"""The page on a live server of two pools, and the pictures of it for the documentation.

VIASERVE_TEST_PICTURES names the folder that keeps the pictures.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from tests.playground import shots
from tests.playground.browser import Page
from tests.serving.server import Server, serving

pytestmark = pytest.mark.slow

# A worker that is stopped is missed soon, and not ended before it goes on.
SETTINGS = (
    "model.dtype=float32",
    "liveness.heartbeat_s=1",
    "liveness.silence_s=5",
    "liveness.dead_s=600",
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(SETTINGS, config="config/two-pools.yaml") as server:
        yield server


@pytest.fixture
def page(browser: webdriver.Chrome, server: Server) -> Page:
    return Page(browser, f"{server.url}/")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(os.environ.get("VIASERVE_TEST_PICTURES", tmp_path))


def test_two_exact_modes_side_by_side_say_the_same(page: Page, folder: Path) -> None:
    shots.side_by_side(page, folder)
    assert "Identical: the same 48 tokens" in page.text("#turns")
    assert page.complaints() == []


def test_one_answer_is_marked_by_its_tiers(page: Page, folder: Path) -> None:
    shots.single(page, folder)
    assert page.all(".answer .token.full")
    shots.narrow(page, folder)
    assert page.complaints() == []


def test_a_server_without_its_cheap_pool_answers_and_the_page_says_so(
    page: Page, server: Server, folder: Path
) -> None:
    [cheap] = [w["pid"] for w in server.ready()["workers"] if w["pool"] == "cheap"]
    os.kill(cheap, signal.SIGSTOP)
    try:
        shots.degraded(page, folder)
        assert page.all(".answer .token.full")
        assert "0 of 1 worker" in page.text("#fleet")
    finally:
        os.kill(cheap, signal.SIGCONT)
    page.until(lambda: page.one("#state").get_attribute("data-state") == "ok")
    assert page.complaints() == []
