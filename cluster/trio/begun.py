"""What a job that goes on says where its file was begun with other settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def other_settings(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """The first setting, by name, that differs, in words; None where all are the same."""
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            return f"was begun with {name} {theirs.get(name)!r}, not {ours.get(name)!r}"
    return None
