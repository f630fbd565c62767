"""Every candidate of a search, asked for once: from the journal, or from the judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.trio.routes.candidate import Candidate
from cluster.trio.routes.candidates import Candidates
from cluster.trio.routes.journal import Entry, Journal
from cluster.trio.routes.judges import JudgeAll
from cluster.trio.routes.objective import Assumed, Objective, Prediction, Steps, predict, value
from cluster.trio.routes.search import Proposed

SEARCHED, HELD_OUT = 0, 1
"""Numbers of the two sets of rows."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a judged candidate is worth."""

    candidates: Candidates
    steps: Steps
    assumed: Assumed
    objective: Objective

    def predict(self, entry: Entry) -> Prediction:
        """Its likeness, in seconds."""
        share = self.candidates.share(entry.candidate.mask)
        coupling = entry.likeness.coupling
        return predict(self.steps, self.assumed, share, coupling, entry.int8)

    def value(self, entry: Entry) -> float:
        """Less is better."""
        return value(self.objective, entry.likeness, self.predict(entry))


class Ledger:
    """`entries`: the candidates asked for so far, each once, in order. `saw` is told of each."""

    def __init__(
        self,
        journal: Journal,
        candidates: Candidates,
        judge_all: JudgeAll,
        saw: Callable[[Entry], None] = lambda entry: None,
    ) -> None:
        self._journal, self._candidates, self._judge_all = journal, candidates, judge_all
        self._saw = saw
        self._asked: set[tuple[bool, Candidate]] = set()
        self.entries: list[Entry] = []

    def ask(self, proposed: Sequence[Proposed], which: int = SEARCHED) -> list[Entry]:
        """Their entries; what the journal does not have is judged and written there."""
        held_out, known = which == HELD_OUT, self._journal.known
        keys = [(held_out, candidate) for _, candidate in proposed]
        missing = dict.fromkeys(
            candidate for key, candidate in keys if (key, candidate) not in known
        )
        judged = self._judge_all([self._candidates.route(c) for c in missing], which)
        for key, (kind, candidate) in zip(keys, proposed, strict=True):
            if key not in known:
                self._journal.add(Entry.of(kind, candidate, next(judged), held_out))
            if key not in self._asked:
                self._asked.add(key)
                self.entries.append(known[key])
                self._saw(known[key])
        return [known[key] for key in keys]
