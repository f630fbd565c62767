"""What was looked at, how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """failed: serving will not work; warning: it will, but slower, or not as asked."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """`found` says how it is, `advice` what to do (empty where all is well); `figures` are the
    same for scripts, units in their names."""

    area: str
    what: str
    verdict: Verdict
    found: str
    advice: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def ok(area: str, what: str, found: str, **figures: Any) -> Finding:
    """All is well."""
    return Finding(area, what, Verdict.OK, found, figures=figures)


def warning(area: str, what: str, found: str, advice: str, **figures: Any) -> Finding:
    """It will do, but."""
    return Finding(area, what, Verdict.WARNING, found, advice, figures)


def failed(area: str, what: str, found: str, advice: str, **figures: Any) -> Finding:
    """It will not do."""
    return Finding(area, what, Verdict.FAILED, found, advice, figures)
