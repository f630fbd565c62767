"""Every candidate of a search, asked for once: from the journal, or from the judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.trio.routes.candidates import Candidates
from cluster.trio.routes.journal import Entry, Journal
from cluster.trio.routes.judges import JudgeAll
from cluster.trio.routes.objective import Assumed, Objective, Prediction, StepTimes, predict, value
from cluster.trio.routes.search import Proposed
from policies.masks import from_text, to_text

SEARCHED, HELD_OUT = 0, 1
"""Numbers of the two sets of rows."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a judged candidate is worth."""

    candidates: Candidates
    times: StepTimes
    assumed: Assumed
    objective: Objective

    def predict(self, entry: Entry) -> Prediction:
        """Its likeness, in seconds."""
        share = self.candidates.share(from_text(entry.mask))
        return predict(self.times, self.assumed, share, entry.likeness.coupling)

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
        self._asked: set[tuple[bool, str]] = set()
        self.entries: list[Entry] = []

    def ask(self, proposed: Sequence[Proposed], which: int = SEARCHED) -> list[Entry]:
        """Their entries; what the journal does not have is judged and written there."""
        held_out, known = which == HELD_OUT, self._journal.known
        keys = [(held_out, to_text(mask)) for _, mask in proposed]
        missing = {mask: kind for kind, mask in proposed if (held_out, to_text(mask)) not in known}
        judged = self._judge_all([self._candidates.route(mask) for mask in missing], which)
        for key, (kind, _) in zip(keys, proposed, strict=True):
            if key not in known:
                self._journal.add(Entry(kind, key[1], next(judged), held_out))
            if key not in self._asked:
                self._asked.add(key)
                self.entries.append(known[key])
                self._saw(known[key])
        return [known[key] for key in keys]
