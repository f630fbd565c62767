"""Full's own answers, and what draft and slim would have chosen at each place of them.

Teacher-forced under the same noise, so a row says what a served round would meet there. It
knows engines by their seam and prompts by their ids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from actors.engine.build import TierSource
from actors.engine.lookup_first import behind
from actors.engine.ngram import draft
from actors.engine.seam import Context, Engine, Extend, Propose
from actors.engine.transformers_engine import TransformersEngine
from cluster.advice.calibration import Agreement
from policies.rounds import Curves, Outlook, curve, fill, outlook, rounds
from policies.vocabulary import SamplingParams, SamplingSpec, Tier

_WARM_UP = 32
"""Rows of an uncounted forward of each tier."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt and its file's category."""

    ids: tuple[int, ...]
    category: str = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """The longest draft and block that rounds are looked at for, and the usual draft."""

    gamma: int
    block: int
    usual_gamma: int


@dataclass(slots=True)
class Answered:
    """One answer. `chosen`: what each tier with a model chooses after the answer's own prefix,
    at each of its places. `lookups`: what prompt lookup would propose there; a draft that is a
    model goes on behind it. Of a draft that is not foreseeable (TransformersEngine), all that it
    proposes there. `found`: how many tokens lookup alone finds there, where it is asked."""

    asked: Asked
    ids: tuple[int, ...]
    chosen: dict[Tier, list[int]] = field(default_factory=dict)
    lookups: list[list[int]] | None = None
    found: tuple[int, ...] | None = None

    def screens(self, judge: Tier, longest: int) -> Outlook | None:
        """What a draft meets at each place before `judge`; None where one of them is missing."""
        wanted = self.ids if judge is Tier.FULL else self.chosen.get(judge)
        if wanted is None:
            return None
        drafted = self.chosen.get(Tier.DRAFT)
        if drafted is None and self.lookups is None:
            return None
        if drafted is None:
            goes_on = Outlook((0,) * len(wanted), (0,) * len(wanted))
        else:
            goes_on = outlook([a == b for a, b in zip(drafted, wanted, strict=True)], longest)
        return goes_on if self.lookups is None else _behind(self.lookups, wanted, goes_on, longest)

    def blocks(self, longest: int) -> Outlook | None:
        """What a block of slim's own tokens meets before full."""
        if (slim := self.chosen.get(Tier.SLIM)) is None:
            return None
        return outlook([a == b for a, b in zip(slim, self.ids, strict=True)], longest)


def _behind(
    lookups: Sequence[list[int]], wanted: Sequence[int], goes_on: Outlook, longest: int
) -> Outlook:
    """Lookup's tokens at each place, and behind them what `goes_on` from there."""
    proposed: list[int] = []
    accepted: list[int] = []
    for place, ids in enumerate(lookups):
        found, end = ids[:longest], place + min(len(ids), longest)
        kept = _same(found, wanted[place:])
        more = kept == len(found) and end < len(wanted)
        accepted.append(min(kept + (goes_on.accepted[end] if more else 0), longest))
        rest = goes_on.proposed[min(end, len(wanted) - 1)]
        proposed.append(min(len(found) + rest, longest))
    return Outlook(tuple(proposed), tuple(accepted))


def _same(ids: Sequence[int], wanted: Sequence[int]) -> int:
    pairs = zip(ids, wanted, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(wanted)))


class Examiner:
    """Asks the engines. `prefill_s` and `prefilled`: seconds and rows of prompts, by tier;
    `lookup_s`: of each prompt lookup."""

    def __init__(
        self,
        engines: Mapping[Tier, Engine],
        lookup: TierSource | None,
        sampling: SamplingParams,
        seed: int,
        stop_ids: frozenset[int],
        use: Callable[[Tier], None] = lambda tier: None,
    ) -> None:
        """`lookup`: a draft that looks up, alone or before its model; `use` is called before a
        tier computes."""
        alone = lookup is not None and lookup.model_dir is None
        self._engines = {t: e for t, e in engines.items() if t is not Tier.DRAFT or not alone}
        self._lookup, self._params, self._seed, self._stops = lookup, sampling, seed, stop_ids
        self._use = use
        self._warm = False
        self.prefill_s = dict.fromkeys(self._engines, 0.0)
        self.prefilled = 0
        self.lookup_s: list[float] = []

    def examine(self, asked: Sequence[Asked], max_tokens: int, longest: int) -> list[Answered]:
        """Full answers all of them side by side, then every tier looks at the answers."""
        contexts = [self._context(i, each) for i, each in enumerate(asked)]
        self._warm_up(contexts[0])
        for tier in self._engines:
            self._prefill(tier, contexts)
        self.prefilled += sum(len(c.tokens) for c in contexts)
        self._use(Tier.FULL)
        answers = self._engines[Tier.FULL].propose([Propose(c, max_tokens) for c in contexts])
        found = [Answered(a, tuple(ids)) for a, ids in zip(asked, answers, strict=True)]
        for tier, engine in self._engines.items():
            if tier is not Tier.FULL and not self._must_be_asked(tier):
                self._use(tier)
                scored = engine.extend(
                    [
                        Extend(c, len(c.tokens) - 1, len(each.ids))
                        for c, each in zip(contexts, found, strict=True)
                    ]
                )
                for each, ids in zip(found, scored, strict=True):
                    each.chosen[tier] = ids
        if self._must_be_asked(Tier.DRAFT):
            self._use(Tier.DRAFT)
            self._propose_everywhere(contexts, found, longest)
        for engine in self._engines.values():
            for context in contexts:
                engine.release(context.session_id)
        if self._lookup is not None:
            for each in found:
                lookups = self._look_up(self._lookup, each, longest)
                each.found = tuple(map(len, lookups))
                if not self._must_be_asked(Tier.DRAFT):
                    each.lookups = lookups
        return found

    def _context(self, number: int, asked: Asked) -> Context:
        sampling = SamplingSpec(self._params, self._seed, 0, len(asked.ids))
        return Context(f"asked-{number}", sampling, self._stops, list(asked.ids))

    def _warm_up(self, context: Context) -> None:
        if not self._warm:
            for tier, engine in self._engines.items():
                self._use(tier)
                engine.extend([Extend(context, min(_WARM_UP, len(context.tokens)), 1)])
                engine.release(context.session_id)
            self._warm = True

    def _prefill(self, tier: Tier, contexts: Iterable[Context]) -> None:
        self._use(tier)
        for context in contexts:
            begin = time.perf_counter()
            self._engines[tier].extend([Extend(context, len(context.tokens), 1)])
            self.prefill_s[tier] += time.perf_counter() - begin

    def _must_be_asked(self, tier: Tier) -> bool:
        """Whether only asking at each place shows what a draft proposes."""
        if tier is not Tier.DRAFT or tier not in self._engines:
            return False
        engine = behind(self._engines[tier])
        return isinstance(engine, TransformersEngine) and not engine.foreseeable

    def _propose_everywhere(
        self, contexts: Sequence[Context], found: Sequence[Answered], longest: int
    ) -> None:
        """At each place of the answers, the last one first, with full as far as it then is."""
        full, draft = self._engines[Tier.FULL], self._engines[Tier.DRAFT]
        for each in found:
            each.lookups = [[] for _ in each.ids]
        for back in range(1, max(len(each.ids) for each in found) + 1):
            going = [pair for pair in zip(contexts, found, strict=True) if len(pair[1].ids) >= back]
            for context, each in going:
                del context.tokens[len(each.asked.ids) + len(each.ids) - back :]
                full.truncate(context.session_id, len(context.tokens) - 1)
                draft.truncate(context.session_id, len(context.tokens))
            made = draft.propose([Propose(context, longest) for context, _ in going])
            for (_, each), ids in zip(going, made, strict=True):
                assert each.lookups is not None
                each.lookups[len(each.ids) - back] = ids

    def _look_up(self, source: TierSource, answered: Answered, longest: int) -> list[list[int]]:
        lengths = (source.ngram_longest, source.ngram_shortest)
        tokens = [*answered.asked.ids, *answered.ids]
        first = len(answered.asked.ids)
        found: list[list[int]] = []
        for end in range(first, len(tokens)):
            begin = time.perf_counter()
            found.append(draft(tokens[:end], longest, *lengths, self._stops))
            self.lookup_s.append(time.perf_counter() - begin)
        return found


def agreement(answers: Sequence[Answered], reach: Reach) -> Agreement:
    """Place by place, and what two-tier rounds commit."""
    two = [seen for a in answers if (seen := a.screens(Tier.FULL, reach.gamma)) is not None]
    inner = [seen for a in answers if (seen := a.screens(Tier.SLIM, reach.gamma)) is not None]
    outer = [seen for a in answers if (seen := a.blocks(reach.block)) is not None]
    looked_up = any(a.lookups is not None for a in answers)
    tokens = curve(two, reach.gamma)
    return Agreement(
        places=sum(len(a.ids) for a in answers),
        draft_full=_kept(two, reach.usual_gamma) if looked_up else _rate(two),
        draft_slim=_kept(inner, reach.usual_gamma) if looked_up else _rate(inner),
        slim_full=_rate(outer),
        round_tokens=() if tokens is None else tokens.means,
    )


def curves(answers: Sequence[Answered], reach: Reach) -> Curves:
    """All three."""
    screens = {
        judge: [seen for a in answers if (seen := a.screens(judge, reach.gamma)) is not None]
        for judge in (Tier.FULL, Tier.SLIM)
    }
    blocks = [seen for a in answers if (seen := a.blocks(reach.block)) is not None]
    return Curves(
        draft_full=curve(screens[Tier.FULL], reach.gamma),
        draft_slim=curve(screens[Tier.SLIM], reach.gamma),
        slim_full=curve(blocks, reach.block),
    )


def drafted_share(answers: Sequence[Answered], reach: Reach) -> tuple[float, float]:
    """hit_frac and length_frac of a draft of the usual length; 1 and 1 of a model's."""
    seen = [s for a in answers if (s := a.screens(Tier.FULL, reach.gamma)) is not None]
    return fill(seen, reach.usual_gamma) if seen else (1.0, 1.0)


def _rate(seen: Sequence[Outlook]) -> float | None:
    """Share of the places at which both agree."""
    places = [kept > 0 for each in seen for kept in each.accepted]
    return sum(places) / len(places) if places else None


def _kept(seen: Sequence[Outlook], gamma: int) -> float | None:
    """Kept over judged tokens of all rounds."""
    found = [r for each in seen for r in rounds(each, gamma)]
    judged = sum(min(r.kept + 1, r.proposed) for r in found)
    return sum(r.kept for r in found) / judged if judged else None
