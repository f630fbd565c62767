"""The garbage collector of a process that serves."""

from __future__ import annotations

import gc


def freeze_heap() -> None:
    """What is here by now stays: the collector need not look at it again.

    The libraries are half a million objects, and to go through them holds all requests up for
    hundreds of milliseconds. To be called once the process has loaded everything.
    """
    gc.collect()  # or what is garbage by now, weights perhaps, would stay as well
    gc.freeze()
