"""The pages of the documentation, and what stands in them: blocks, links, anchors, code spans."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOG = {"CHANGELOG.md", "docs/decisions.md"}
"""Dated pages: what they name may have gone since."""

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"(!?)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.M)
_JOINED = {">", ">>", "|", "||", "&&", ";", "&", "2>&1"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line that it begins in."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """One Markdown file. `name` is its path from the root."""

    name: str
    text: str

    @property
    def folder(self) -> Path:
        return (ROOT / self.name).parent

    def blocks(self, *languages: str) -> list[Block]:
        return [
            Block(m[2], m[3], self.text.count("\n", 0, m.start()) + 1)
            for m in _FENCE.finditer(self.text)
            if not languages or m[2] in languages
        ]

    @property
    def prose(self) -> str:
        """The text without its blocks."""
        return _FENCE.sub("", self.text)

    def spans(self) -> list[str]:
        """Code within lines, broken lines joined."""
        return [" ".join(span.split()) for span in _SPAN.findall(self.prose)]

    def links(self) -> list[tuple[bool, str]]:
        """Targets, and whether each is a picture."""
        return [(bool(mark), to) for mark, to in _LINK.findall(self.prose)]

    def anchors(self) -> set[str]:
        """What GitHub makes of the headings."""
        seen: dict[str, int] = {}
        found: set[str] = set()
        for heading in _HEADING.findall(self.prose):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
            slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            number = seen[slug] = seen.get(slug, -1) + 1
            found.add(f"{slug}-{number}" if number else slug)
        return found


def pages() -> list[Page]:
    """README, CHANGELOG and everything under docs/."""
    files = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [Page(file.relative_to(ROOT).as_posix(), file.read_text("utf-8")) for file in files]


def page(name: str) -> Page:
    """One of them."""
    return next(one for one in pages() if one.name == name)


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell block as words, without comments; those joined by `&&`, pipes
    and the like apart. Redirections end a command."""
    held = ""
    for line in text.splitlines():
        held += line
        if held.endswith("\\"):
            held = held[:-1] + " "
            continue
        try:
            words = shlex.split(held, comments=True)
        except ValueError:  # a quotation that goes on in the next line
            held += "\n"
            continue
        held = ""
        yield from _apart(words)
    assert not held.strip(), f"a shell block ends within a quotation: {held}"


def _apart(words: list[str]) -> Iterator[list[str]]:
    one: list[str] = []
    skipping = False
    for word in words:
        if word in _JOINED:
            if one:
                yield one
            one, skipping = [], word in (">", ">>")
        elif skipping:
            skipping = False
        else:
            one.append(word)
    if one:
        yield one
