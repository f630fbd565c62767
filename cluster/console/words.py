"""Figures as short words, with a dash for what nobody told."""

from __future__ import annotations

NONE = "-"


def percent(frac: float | None) -> str:
    """A share, whole percents."""
    return NONE if frac is None else f"{100 * frac:.0f} %"


def milliseconds(seconds: float | None) -> str:
    """A time."""
    return NONE if seconds is None else f"{1000 * seconds:.1f} ms"


def some(number: int, what: str) -> str:
    """So many of a thing whose plural takes an s."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def count(number: int | None) -> str:
    """A count, thousands apart."""
    return NONE if number is None else f"{number:,}"


def decimal(number: float | None, digits: int = 2) -> str:
    """Any other number."""
    return NONE if number is None else f"{number:.{digits}f}"
