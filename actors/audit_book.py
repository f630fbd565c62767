"""The audit's state, shared by all routers and kept where it outlives them.

A plain class, run as one actor; it knows no session and no model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from policies.audit import AuditRow, AuditSettings, observe
from policies.audit_state import AuditState, from_json, to_json

logger = logging.getLogger("ray.serve")


class Store(Protocol):
    """A small text that survives this process."""

    def load(self) -> str | None:
        """What was saved last, if anything."""
        ...

    def save(self, text: str) -> None:
        """Replace it."""
        ...


class AuditBook:
    """Takes rows in; each answer is the state that they lead to."""

    def __init__(self, trio: str, settings: AuditSettings, store: Store) -> None:
        """`trio` names draft, slim and full: another trio's past says nothing of this one."""
        self._settings = settings
        self._store = store
        self._state = _restored(store, trio, settings) or AuditState(trio)

    def observe(self, rows: Sequence[AuditRow]) -> AuditState:
        """The state with more rows; without any, the state as it is."""
        known = [row for row in rows if row.level <= self._settings.levels]
        before, self._state = self._state, observe(self._state, self._settings, known)
        if self._state.level != before.level:
            logger.warning("audit: level %d, was %d", self._state.level, before.level)
        if self._state is not before:
            self._store.save(to_json(self._state))
        return self._state

    def configure(self, trio: str, settings: AuditSettings) -> AuditState:
        """Settings of a live server. Another trio or number of levels begins anew."""
        if trio != self._state.trio or settings.levels != self._settings.levels:
            self._state = AuditState(trio)
            self._store.save(to_json(self._state))
        self._settings = settings
        return self._state


def _restored(store: Store, trio: str, settings: AuditSettings) -> AuditState | None:
    text = store.load()
    if text is None:
        return None
    try:
        state = from_json(text)
    except ValueError:
        logger.exception("the audit's saved state cannot be read; it begins anew")
        return None
    return state if state.trio == trio and state.level <= settings.levels else None
