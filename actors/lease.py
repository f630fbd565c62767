"""One compute lease per set of shared cores: workers that share them compute in turn.

Two processes whose OpenMP threads compete for the same cores stall each other at every
barrier (DESIGN section 6); taking turns costs a file lock. The lock dies with its holder.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from types import TracebackType


class ComputeLease:
    """Held while a step computes; a lease without a name is never waited for."""

    def __init__(self, name: str | None) -> None:
        self._fd: int | None = None
        if name is not None:
            path = Path(tempfile.gettempdir()) / f"viaserve-{os.getuid()}-{name}.lease"
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> ComputeLease:
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
