"""By what a job that goes on knows its file, and what it says where that was begun with other
settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def other_settings(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """The first setting, by name, that differs, in words; None where all are the same."""
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            return f"was begun with {name} {theirs.get(name)!r}, not {ours.get(name)!r}"
    return None


def content_of(*files: Path) -> str:
    """Files as one setting: 16 hex digits of what is in them. Raises OSError."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
