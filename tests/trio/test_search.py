"""Laws of the route search, with values from a formula instead of a model."""

import json
from dataclasses import replace

import numpy as np
import pytest

from actors.engine.route import ModelError
from cluster.trio.likeness import Likeness
from cluster.trio.routes.candidate import Candidate
from cluster.trio.routes.candidates import Candidates
from cluster.trio.routes.journal import Journal
from cluster.trio.routes.ledger import HELD_OUT, Ledger
from cluster.trio.routes.search import Search, SearchSettings
from policies.masks import Space, even_mask

SPACE = Space(12)
SETTINGS = SearchSettings(range(6, 7), candidates=24, seed=3)
WEIGHTS = np.random.default_rng(5).normal(size=(SPACE.num_units, SPACE.num_units))


class Killed(BaseException):
    """The process ends here."""


def worth(kept: tuple[int, ...]) -> float:
    """Pairs of layers that need each other: sensitivities alone do not find the best."""
    flags = np.zeros(SPACE.num_units)
    flags[[layer - 1 for layer in kept[1:-1]]] = 1
    return float(flags @ WEIGHTS @ flags)


class Judges:
    """Answer by `worth`, and that int8 is worth `int8` more; `ends_after` candidates they are
    killed."""

    def __init__(self, ends_after: int = 10**6, int8: float = 0.0):
        self.judged: list[tuple[tuple[int, ...], str | None]] = []
        self.ends_after = ends_after
        self.int8 = int8

    def __call__(self, routes, which):
        for route in routes:
            if len(self.judged) == self.ends_after:
                raise Killed
            self.judged.append((route.kept_layers, route.weights))
            value = worth(route.kept_layers) + (self.int8 if route.weights else 0.0)
            yield Likeness(100, value, 0.5, 0.5, 0.0, 0.0)


def search(path, judges, settings=SETTINGS, model="toy"):
    """The best candidate, and all asked for."""
    what = {"model": model, "seed": settings.seed}
    journal = Journal(path, what, lambda: {"full_1_s": 1.0})
    ledger = Ledger(journal, Candidates(SPACE, model, 0.25), judges)

    def judge(proposed):
        return [-entry.likeness.agreement for entry in ledger.ask(proposed)]

    run = Search(SPACE, settings, judge)
    return run.run(), ledger.entries


def test_the_same_seed_writes_the_same_journal(tmp_path):
    for name in ("one", "other"):
        search(tmp_path / name, Judges())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    search(tmp_path / "third", Judges(), SearchSettings(range(6, 7), candidates=24, seed=4))
    assert (tmp_path / "one").read_bytes() != (tmp_path / "third").read_bytes()


@pytest.mark.parametrize("ends_after", [0, 1, 9, 14, 30, 41])
def test_a_killed_search_goes_on_and_finds_what_an_unbroken_one_does(tmp_path, ends_after):
    whole = Judges()
    expected = search(tmp_path / "whole", whole)
    first, second = Judges(ends_after), Judges()
    with pytest.raises(Killed):
        search(tmp_path / "broken", first)
    with (tmp_path / "broken").open("a") as file:
        file.write('{"kind": "ran')  # torn by the kill
    assert search(tmp_path / "broken", second) == expected
    assert first.judged + second.judged == whole.judged
    assert (tmp_path / "broken").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_longer_search_goes_on_with_a_shorter_one(tmp_path):
    longer = SearchSettings(range(6, 7), candidates=40, seed=3)
    expected = search(tmp_path / "whole", Judges(), longer)
    search(tmp_path / "short", Judges())
    assert search(tmp_path / "short", Judges(), longer) == expected


def test_no_candidate_is_judged_twice(tmp_path):
    judges = Judges()
    search(tmp_path / "journal", judges)
    assert len(judges.judged) == len(set(judges.judged))


def test_the_journal_of_another_model_is_refused(tmp_path):
    search(tmp_path / "journal", Judges())
    with pytest.raises(ModelError, match="was begun with model 'toy', not 'other'"):
        search(tmp_path / "journal", Judges(), model="other")


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / "journal").write_text('{"layers": 3}\n')
    with pytest.raises(ModelError, match="is none of a route search"):
        search(tmp_path / "journal", Judges())


def test_what_was_measured_at_the_beginning_is_kept(tmp_path):
    Journal(tmp_path / "journal", {"seed": 1}, lambda: {"full_1_s": 1.0})
    again = Journal(tmp_path / "journal", {"seed": 1}, lambda: {"full_1_s": 2.0})
    assert again.facts == {"full_1_s": 1.0}


def test_held_out_candidates_are_no_part_of_the_search(tmp_path):
    journal = Journal(tmp_path / "journal", {}, dict)
    ledger = Ledger(journal, Candidates(SPACE, "toy", 0.25), Judges())
    even = Candidate(even_mask(SPACE, 6))
    (seen,), (held,) = ledger.ask([("even", even)]), ledger.ask([("even", even)], HELD_OUT)
    assert (seen.held_out, held.held_out) == (False, True)
    lines = (tmp_path / "journal").read_text().splitlines()[1:]
    assert [json.loads(line)["held_out"] for line in lines] == [False, True]


def test_only_allowed_sizes_can_win(tmp_path):
    best, entries = search(tmp_path / "journal", Judges())
    assert best.candidate.size == 4
    assert {entry.kind for entry in entries} >= {"single", "greedy", "rescored", "even", "bayes"}


def test_the_search_comes_near_the_best_of_all_masks(tmp_path):
    from itertools import combinations

    best, _ = search(tmp_path / "journal", Judges(), SearchSettings(range(6, 7), 48, seed=1))
    every = sorted(worth((0, *inner, 11)) for inner in combinations(range(1, 11), 4))
    assert -best.value >= every[-3]


@pytest.mark.parametrize("local_frac", [0.0, 1.0])
def test_every_theta_th_candidate_is_bayesian(tmp_path, local_frac):
    settings = SearchSettings(range(6, 7), 16, theta=4, local_frac=local_frac, lookahead=0)
    _, entries = search(tmp_path / "journal", Judges(), settings)
    kinds = [e.kind for e in entries if e.kind in ("random", "local", "bayes")]
    other = "local" if local_frac else "random"
    assert kinds == [other, other, other, "bayes"] * 4


INT8 = replace(SETTINGS, int8=True)


@pytest.mark.parametrize(("worth_more", "wins"), [(0.5, True), (-0.5, False)])
def test_int8_wins_only_where_it_is_worth_more(tmp_path, worth_more, wins):
    best, entries = search(tmp_path / "journal", Judges(int8=worth_more), INT8)
    assert best.candidate.int8 is wins
    assert {e.kind for e in entries if e.int8} >= {"twin", "local", "random"}
    assert {e.kind for e in entries if not e.int8} >= {"single", "greedy", "local", "random"}


def test_a_killed_int8_search_goes_on_and_tells_both_weights_apart(tmp_path):
    whole, first, second = Judges(int8=0.1), Judges(28, int8=0.1), Judges(int8=0.1)
    expected = search(tmp_path / "whole", whole, INT8)
    with pytest.raises(Killed):
        search(tmp_path / "broken", first, INT8)
    assert search(tmp_path / "broken", second, INT8) == expected
    assert first.judged + second.judged == whole.judged
    assert len(set(whole.judged)) == len(whole.judged)


def test_a_journal_from_before_int8_goes_on(tmp_path):
    expected = search(tmp_path / "whole", Judges())
    lines = [json.loads(line) for line in (tmp_path / "whole").read_text().splitlines()]
    for entry in lines[1:]:
        assert entry.pop("int8") is False
    old = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "old").write_text(old)
    assert search(tmp_path / "old", Judges(ends_after=0)) == expected
    assert (tmp_path / "old").read_text() == old
