"""Prometheus' text format: several nodes' pages joined to one. It knows no domain.

A page must name each family once, with all its samples together; two pages put one below the
other do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?\s+(\S+)")
_NOISE = re.compile(r',otel_scope_[a-z_]+="[^"]*"')
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Family:
    """One metric's lines, as they are written."""

    name: str
    what: str = ""
    kind: str = "untyped"
    samples: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """As it stands on a page."""
        return [f"# HELP {self.name} {self.what}", f"# TYPE {self.name} {self.kind}", *self.samples]


class Page:
    """Families that are joined from pages. `keep`: beginnings of names that are taken over;
    `strip`: a beginning that the names lose."""

    def __init__(self, keep: tuple[str, ...], strip: dict[str, str]) -> None:
        self._keep = keep
        self._strip = strip
        self.families: dict[str, Family] = {}

    def add(self, text: str) -> None:
        """Take a page in. Lines that are none of the format are left out."""
        family: Family | None = None
        for line in text.split("\n"):  # `splitlines` would cut a label at U+2028, too
            if line.startswith("# "):
                family = self._comment(line.split(" ", 3), family)
            elif family is not None and line.startswith(family_start := self._from(family.name)):
                sample = family.name + line[len(family_start) :]
                family.samples.append(_NOISE.sub("", sample))

    def _comment(self, words: list[str], family: Family | None) -> Family | None:
        if len(words) < 3 or words[1] not in ("HELP", "TYPE"):
            return family
        if not words[2].startswith(self._keep):
            return None
        name = self._to(words[2])
        family = self.families.setdefault(name, Family(name))
        if words[1] == "HELP":
            family.what = words[3] if len(words) > 3 else ""
        else:
            family.kind = words[3] if len(words) > 3 else "untyped"
        return family

    def _to(self, name: str) -> str:
        """What a name of a page is here."""
        for old, new in self._strip.items():
            if name.startswith(old):
                return new + name[len(old) :]
        return name

    def _from(self, name: str) -> str:
        for old, new in self._strip.items():
            if name.startswith(new):
                return old + name[len(new) :]
        return name

    def total(self, name: str) -> float:
        """The sum of a family's samples; 0 without any."""
        family = self.families.get(name)
        found = [] if family is None else [_SAMPLE.match(line) for line in family.samples]
        return sum(float(match[3]) for match in found if match and match[1] == name)

    def gauge(self, name: str, what: str, values: Iterable[tuple[str, float]]) -> None:
        """Add a family of our own: labels as they are written, and values."""
        self.families[name] = Family(
            name, what, "gauge", [f"{name}{labels} {value:.10g}" for labels, value in values]
        )

    def text(self) -> str:
        """The page, families by name."""
        lines = [line for _, f in sorted(self.families.items()) for line in f.lines()]
        return "\n".join(lines) + "\n"
