"""What tests of several packages need."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import hypothesis
import pytest
from selenium import webdriver

from cluster.fetch import PACKAGE, fetch_default
from tests.playground.browser import MISSING, chromium, is_installed

# No test judges time; a busy machine is no failure.
hypothesis.settings.register_profile("viaserve", deadline=None)
hypothesis.settings.load_profile("viaserve")


_BEGAN_S = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--budget-s",
        type=float,
        help="seconds after which no further test begins: skipped",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    budget_s = item.config.getoption("--budget-s")
    if budget_s is not None and time.monotonic() - _BEGAN_S > budget_s:
        pytest.skip(f"the {budget_s:g} s of --budget-s are over")


@pytest.fixture(scope="session")
def default_model_dir() -> Path:
    """The default model's folder, made if it is not there; skips without its package."""
    try:
        metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed, so there is no default model")
    return fetch_default()


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Debian's Chromium; skips without it."""
    if not is_installed():
        pytest.skip(MISSING)
    with chromium() as driver:
        yield driver
