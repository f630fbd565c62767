"""Chooses how `serve` tells of its start: live on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import sys

from cluster.console.start import PlainTeller, Teller


def teller_here() -> Teller:
    """The one for this process's stdout."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        return PlainTeller()
    from cluster.console.checklist import LiveTeller

    return LiveTeller()
