"""The user's own faults, as one line each. Imports nothing, so that every command can."""

from __future__ import annotations


class ConfigError(Exception):
    """A config or an option that cannot be served; one line for the user."""
