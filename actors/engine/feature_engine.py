"""The engine of a draft that reads full's last hidden states, in full's own worker.

Where full has not been yet, on tokens that this draft or a slim has just proposed, it reads its
own last hidden states instead; what it cached on that footing it computes anew once full has
been there. It knows full's engine by its features alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from actors.engine.attention import Span
from actors.engine.seam import Propose
from actors.engine.transformers_engine import Pending, TransformersEngine


class FeatureEngine(TransformersEngine):
    """A draft's model behind full's engine `source`, which keeps its features."""

    def __init__(self, model: PreTrainedModel, source: TransformersEngine, **sizes: Any) -> None:
        """`sizes`: see TransformersEngine."""
        super().__init__(model, keep_features=True, row_invariant=False, **sizes)
        self._source = source
        self._width: int = model.config.hidden_size
        # Rows that rest on full's states alone, by session; see `propose`.
        self._sound: dict[str, int] = {}

    @property
    def foreseeable(self) -> bool:
        """See TransformersEngine: behind its own tokens it reads other states than full's."""
        return False

    def propose(self, requests: Sequence[Propose]) -> list[list[int]]:
        """See Engine. Sessions of which full holds nothing get no proposal."""
        able: list[Propose] = []
        for request in requests:
            session_id = request.context.session_id
            held = self._source.num_cached(session_id)
            if held:
                # A row reads full's state at the token before it: one more than full has.
                self.truncate(session_id, min(self._sound.get(session_id, 0), held + 1))
                self._sound[session_id] = held + 1
                able.append(request)
        made = dict(zip(map(id, able), super().propose(able), strict=True))
        return [made.get(id(request), []) for request in requests]

    def release(self, session_id: str) -> None:
        """See Engine."""
        self._sound.pop(session_id, None)
        super().release(session_id)

    def _room(self, pending: Pending) -> int:
        """Rows that this forward can take: where full has not been, a row reads the one before
        it, which must be there."""
        return max(
            self._source.num_cached(pending.request.context.session_id) + 1 - pending.todo, 1
        )

    def _inputs(self, chunk: Sequence[tuple[Pending, Span]]) -> torch.Tensor:
        """At each row the state at the token before it, full's or else its own; (rows, hidden)."""
        parts: list[torch.Tensor] = []
        for pending, span in chunk:
            session_id = pending.request.context.session_id
            first, end = span.position - 1, span.position - 1 + span.count
            if first < 0:
                parts.append(torch.zeros(1, self._width, device=self._device))
                first = 0
            theirs = self._source.features_of(session_id, first, end)
            parts.append(theirs)
            if first + len(theirs) < end:
                parts.append(self.features_of(session_id, first + len(theirs), end))
        return torch.cat(parts)
