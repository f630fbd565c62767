"""Laws of the audit's book: what it has seen outlives it, for the same models and levels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.audit_book import AuditBook
from policies.audit import AuditRow, AuditSettings

SETTINGS = AuditSettings(min_rows=8)
BAD = [AuditRow(True, 1.0, escalated=False, level=0)] * 40


class Memory:
    """A store of one text."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.saved = 0

    def load(self) -> str | None:
        return self.text

    def save(self, text: str) -> None:
        self.text, self.saved = text, self.saved + 1


def test_a_new_book_goes_on_where_the_old_one_died():
    store = Memory()
    state = AuditBook("trio", SETTINGS, store).observe(BAD)
    assert (state.level, state.sampled.rows) == (1, 40)
    assert AuditBook("trio", SETTINGS, store).observe([]) == state


def test_another_trio_begins_anew():
    store = Memory()
    AuditBook("trio", SETTINGS, store).observe(BAD)
    assert AuditBook("other", SETTINGS, store).observe([]).sampled.rows == 0


@pytest.mark.parametrize("text", ["", "{}", "[1]", "nonsense"])
def test_a_text_that_is_no_state_is_none(text):
    store = Memory()
    store.text = text
    assert AuditBook("trio", SETTINGS, store).observe([]).level == 0


def test_asking_without_rows_saves_nothing():
    store = Memory()
    AuditBook("trio", SETTINGS, store).observe([])
    assert store.saved == 0


def test_new_settings_of_a_live_server_keep_the_evidence_unless_the_levels_change():
    book = AuditBook("trio", SETTINGS, Memory())
    book.observe(BAD)
    assert book.configure("trio", replace(SETTINGS, epsilon=0.1)).level == 1
    assert book.configure("trio", replace(SETTINGS, levels=2)).level == 0


def test_late_rows_of_a_level_that_is_no_more_are_left_out():
    book = AuditBook("trio", replace(SETTINGS, levels=2), Memory())
    late = [AuditRow(True, 1.0, escalated=False, level=4)]
    assert book.observe(late).sampled.rows == 0
