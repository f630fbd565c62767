"""A pack as bytes: two counts, then ids, spans and kept rows as 32-bit numbers."""

from __future__ import annotations

import numpy as np

from actors.engine.attention import Span
from actors.engine.forward import Pack

_TYPE = np.dtype("<i4")


def pack_to_bytes(pack: Pack) -> bytes:
    """About 4 bytes a row and a kept row, 12 a session."""
    numbers = [len(pack.ids), len(pack.spans), *pack.ids]
    for span in pack.spans:
        numbers += (span.slot, span.position, span.count)
    return np.array([*numbers, *pack.keep], _TYPE).tobytes()


def pack_of_bytes(message: bytes) -> Pack:
    """The same pack; spans lie in it without gaps."""
    numbers = np.frombuffer(message, _TYPE).tolist()
    num_ids, num_spans = numbers[:2]
    end = 2 + num_ids
    spans: list[Span] = []
    row = 0
    for i in range(end, end + 3 * num_spans, 3):
        slot, position, count = numbers[i : i + 3]
        spans.append(Span(slot, position, row, count))
        row += count
    return Pack(numbers[2:end], spans, numbers[end + 3 * num_spans :])
