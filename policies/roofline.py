"""Step times from a hardware description: a prediction that nobody has measured.

A forward either waits for memory or for arithmetic, whichever takes longer, plus a fixed
overhead (Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009). Not modelled: attention's
arithmetic, collectives between cards, kernels that reach less than the usable share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hardware:
    """One worker's cards together. `bandwidth_frac`, `compute_frac`: the usable share of what
    the data sheet says of each card; `overhead_s`: of one forward, launches and collectives
    included."""

    bandwidth_bytes_per_s: float
    flop_per_s: float
    cards: int = 1
    bandwidth_frac: float = 0.7
    compute_frac: float = 0.5
    overhead_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelSize:
    """`weight_bytes`: read by each forward. `parameters`: multiplied for each row."""

    parameters: float
    weight_bytes: float
    kv_bytes_per_token: float


class Roofline:
    """The forwards of one model on one kind of worker."""

    def __init__(self, hardware: Hardware, model: ModelSize) -> None:
        usable = hardware.cards * hardware.bandwidth_frac * hardware.bandwidth_bytes_per_s
        usable_flop = hardware.cards * hardware.compute_frac * hardware.flop_per_s
        self._overhead_s = hardware.overhead_s
        self._weights_s = model.weight_bytes / usable
        self._token_s = model.kv_bytes_per_token / usable
        self._row_s = 2 * model.parameters / usable_flop

    def forward_s(self, rows: float, context_tokens: float) -> float:
        """Seconds of one forward over `context_tokens` tokens of context, of all sessions
        together: their keys and values are read once."""
        memory_s = self._weights_s + context_tokens * self._token_s
        return self._overhead_s + max(memory_s, rows * self._row_s)


def forward_time(
    hardware: Hardware, model: ModelSize, sessions: int, context_tokens: int
) -> Callable[[float], float]:
    """Seconds of one forward as a function of its rows, of `sessions` sessions together with
    `context_tokens` tokens of context each."""
    law = Roofline(hardware, model)
    return lambda rows: law.forward_s(rows, sessions * context_tokens)
