"""A search's journal: a JSON line of settings, then one for each candidate judged.

A line is there whole or not at all, so a search that was killed reads its results again and
judges only what is missing. It knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actors.engine.route import ModelError
from cluster.trio.begun import other_settings
from cluster.trio.likeness import Likeness
from cluster.trio.routes.candidate import Candidate
from policies.masks import from_text, to_text

FORMAT = "viaserve-route-journal-1"


@dataclass(frozen=True, slots=True)
class Entry:
    """`kind`: what proposed the candidate; `mask`: `policies.masks.to_text`; `held_out`: judged
    by the rows that the search does not see; `int8`: its weights, which lines of searches before
    there were such do not name."""

    kind: str
    mask: str
    likeness: Likeness
    held_out: bool = False
    int8: bool = False

    @classmethod
    def of(cls, kind: str, candidate: Candidate, likeness: Likeness, held_out: bool) -> Entry:
        """A candidate that was judged."""
        return cls(kind, to_text(candidate.mask), likeness, held_out, candidate.int8)

    @property
    def candidate(self) -> Candidate:
        """What was judged."""
        return Candidate(from_text(self.mask), self.int8)


class Journal:
    """One file; `known` are the candidates in it, `facts` what was measured when it began."""

    def __init__(
        self, path: Path, settings: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]
    ) -> None:
        """Begin or go on; `measure` is asked at the beginning only. ModelError where the file
        belongs to a search with other settings."""
        self._path = path
        self.known: dict[tuple[bool, Candidate], Entry] = {}
        lines = _whole_lines(path)
        ours = json.loads(json.dumps(settings))
        if not lines:
            self.facts = dict(measure())
            _write_line(path, {"format": FORMAT, "settings": ours, "facts": self.facts})
            return
        try:
            head, *entries = map(json.loads, lines)
            theirs, self.facts = head["settings"], head["facts"]
            for fields in entries:
                self._know(Entry(**fields | {"likeness": Likeness(**fields["likeness"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"journal {path}: is none of a route search: {error!r}") from None
        if (differs := other_settings(theirs, ours)) is not None:
            raise ModelError(f"journal {path}: {differs}; give another --out or the same settings")

    def add(self, entry: Entry) -> None:
        """Keep a judged candidate."""
        self._know(entry)
        _write_line(self._path, asdict(entry))

    def _know(self, entry: Entry) -> None:
        self.known[entry.held_out, entry.candidate] = entry


def _whole_lines(path: Path) -> list[bytes]:
    """The lines; a torn last one is cut off the file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with path.open("r+b") as file:
            file.truncate(end)
    return content[:end].splitlines()


def _write_line(path: Path, fields: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(fields) + "\n")
