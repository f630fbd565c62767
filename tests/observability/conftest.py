"""The world of router tests serves here too."""

from tests.actors.conftest import world

__all__ = ["world"]
