"""What several commands read of their options."""

from __future__ import annotations

from cluster.config import ConfigError


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, ascending; ConfigError where the text has others."""
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or found[0] < 1:
        raise ConfigError(f"{option} {text}: give numbers from 1 up, like 1,2,4,8")
    return found
