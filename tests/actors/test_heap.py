"""Laws of the frozen heap, each in a process of its own: freezing holds for all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import gc, weakref
gc.disable()

class Loop:
    def __init__(self):
        self.itself = self

garbage, kept = Loop(), Loop()
gone, here = weakref.ref(garbage), weakref.ref(kept)
del garbage
from actors.heap import freeze_heap
freeze_heap()
assert gone() is None, "garbage of the start is not kept for good"
assert here() is kept
assert not gc.get_objects(generation=2), "nothing is left to look through"
later = Loop()
gone = weakref.ref(later)
del later
gc.collect()
assert gone() is None, "what comes later is collected as ever"
"""


def test_a_frozen_heap_keeps_no_garbage_and_leaves_the_collector_little():
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
