"""What tests of several packages need."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import hypothesis
import pytest

from cluster.fetch import PACKAGE, fetch_default

# No test judges time; a busy machine is no failure.
hypothesis.settings.register_profile("viaserve", deadline=None)
hypothesis.settings.load_profile("viaserve")


@pytest.fixture(scope="session")
def default_model_dir() -> Path:
    """The default model's folder, made if it is not there; skips without its package."""
    try:
        metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed, so there is no default model")
    return fetch_default()
