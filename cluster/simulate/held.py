"""What a simulated worker holds: lengths instead of ids, and the room that they take."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.vocabulary import Tier
from policies.work import WorkItem


@dataclass(slots=True)
class Held:
    """A session here: ids held, and up to where each tier has computed them. `number` of the
    request; `prompt`: its length."""

    number: int
    prompt: int
    length: int = 0
    computed: dict[Tier, int] = field(default_factory=dict)

    @property
    def place(self) -> int:
        """Tokens of the answer."""
        return self.length - self.prompt

    def catch_up(self, tier: Tier) -> int:
        """Rows that a tier has to compute to be up to date, one at least; it then is."""
        rows = max(self.length - self.computed.get(tier, 0), 1)
        self.computed[tier] = self.length
        return rows


class Memory:
    """`capacity`: tokens of context of all sessions together."""

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self._held: dict[str, Held] = {}
        self._tokens = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def used_frac(self) -> float:
        """Share of the room that is taken."""
        return self._tokens / self._capacity

    def take(self, item: WorkItem) -> Held | None:
        """Hold what the item says; None if its prefix is not here."""
        held = self._held.pop(item.session_id, None)
        if held is None:
            if item.open is None:
                return None
            sampling = item.open.sampling
            held = Held(sampling.seed, sampling.prompt_len)
        if held.length < item.start:
            self._tokens -= held.length
            return None
        self._held[item.session_id] = held  # the last used stands last
        self.cut(held, item.start)
        self.grow(held, len(item.tokens))
        return held

    def grow(self, held: Held, count: int) -> None:
        """So many ids more."""
        held.length += count
        self._tokens += count

    def cut(self, held: Held, length: int) -> None:
        """Hold no more than so many of a session's."""
        if length < held.length:
            self._tokens -= held.length - length
            held.length = length
            for tier, upto in held.computed.items():
                if upto > length:
                    held.computed[tier] = length

    def forget(self, session_id: str) -> None:
        """A session is over, or elsewhere."""
        if (held := self._held.pop(session_id, None)) is not None:
            self._tokens -= held.length

    def make_room(self) -> None:
        """The longest unused go first; the last one stays whatever it takes."""
        while self._tokens > self._capacity and len(self._held) > 1:
            self.forget(next(iter(self._held)))
            self.evicted += 1
