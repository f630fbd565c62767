"""A simulated fleet in lockstep, for tests of the controller: true times and rates, noise,
and what `actors/` would tell the controller. Sessions that share a call wait for each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from policies.costs import CostModel, Rates, TierCost
from policies.estimates import TierTiming
from policies.evidence import Rate, Verdicts
from policies.vocabulary import Plan, PlanKind, Tier

ALL = frozenset(Tier)
OFF = Plan(PlanKind.OFF)
DECODE_TOKENS = 4
Seconds = Callable[[float], float]


@dataclass
class Truth:
    """What holds; tests change it on the way. Full's forward of one row takes about 1 s."""

    a0: float = 0.7
    a1: float = 0.75
    a2: float = 0.9
    hit_frac: float = 1.0
    draft_s: Seconds = lambda rows: 0.1 + 0.001 * rows
    slim_s: Seconds = lambda rows: 0.3 + 0.003 * rows
    full_s: Seconds = lambda rows: 1.0 + 0.01 * rows
    hop_s: float = 0.05
    speed: float = 1.0
    lookup: bool = False


@dataclass
class Round:
    """One session's round."""

    plan: Plan
    seconds: float
    tokens: int
    reason: str = ""
    probe: bool = False


class Fleet:
    """`choose(load, draw)` gives each session's plan; `controller`, if any, is told all."""

    def __init__(self, truth: Truth, seed: int, noise: float = 0.2, controller=None) -> None:
        self.truth, self.noise, self.controller = truth, noise, controller
        self.rng = np.random.default_rng(seed)
        self.rounds: list[Round] = []

    def run(self, ticks: int, load: int, plan: Plan | None = None) -> list[Round]:
        """So many rounds of `load` sessions each; with `plan` the controller is not asked."""
        begin = len(self.rounds)
        for _ in range(ticks):
            self.rounds += self._tick(load, plan)
        return self.rounds[begin:]

    def _tick(self, load: int, plan: Plan | None) -> list[Round]:
        rounds = []
        for _ in range(load):
            if plan is not None:
                rounds.append(Round(plan, 0.0, 0))
            else:
                choice = self.controller.choose(load, ALL, self.rng.random())
                rounds.append(Round(choice.plan, 0.0, 0, choice.reason, choice.probe))
        proposing = [r for r in rounds if r.plan.kind is not PlanKind.OFF]
        blocks = self._propose(proposing)
        self._verify(rounds, [blocks.get(id(r), 0) for r in rounds])
        return rounds

    def _propose(self, rounds: list[Round]) -> dict[int, int]:
        """Length of each one's block; all wait for the whole call."""
        if not rounds:
            return {}
        spent = {Tier.DRAFT: [0.0, 0, 0], Tier.SLIM: [0.0, 0, 0]}
        blocks = {id(r): 0 for r in rounds}
        stats = {id(r): [0, 0, 0, 0] for r in rounds}
        going = rounds
        while going:
            lengths = {id(r): min(r.plan.gamma, r.plan.block_len - blocks[id(r)]) for r in going}
            self._draft(list(lengths.values()), spent[Tier.DRAFT])
            drafted = {k: n * (self.rng.random() < self.truth.hit_frac) for k, n in lengths.items()}
            screened = [r for r in going if r.plan.kind is PlanKind.THREE_TIER]
            if screened:
                rows = sum(drafted[id(r)] + 1 for r in screened)
                self._forward(self.truth.slim_s, rows, spent[Tier.SLIM])
            for r in going:
                key = id(r)
                room, count = r.plan.block_len - blocks[key], drafted[key]
                if r.plan.kind is PlanKind.TWO_TIER:
                    blocks[key], stats[key] = count, [0, 0, lengths[key], count]
                    continue
                kept = self._kept(self.truth.a1, count)
                blocks[key] += min(kept + 1, room)
                stat = stats[key]
                stat[0] += min(kept + 1, count)
                stat[1] += kept
                stat[2] += lengths[key]
                stat[3] += count
            going = [r for r in screened if blocks[id(r)] < r.plan.block_len]
        hop = self._noisy(self.truth.hop_s)
        for r in rounds:
            r.seconds += hop + sum(seconds for seconds, _, _ in spent.values())
        if self.controller is not None:
            self._tell(rounds, spent, hop, stats)
        self._stats = stats
        return blocks

    def _tell(self, rounds, spent, hop, stats) -> None:
        for tier, (seconds, forwards, count) in spent.items():
            if seconds:
                self.controller.saw_step(TierTiming(tier, seconds, forwards, count))
                self.controller.saw_hop(tier, hop)
        for r in rounds:
            if r.plan.kind is PlanKind.THREE_TIER:
                self.controller.saw_verdicts(Verdicts(Rate.DRAFT_SLIM, *stats[id(r)]))

    def _draft(self, lengths, spent) -> None:
        if self.truth.lookup:
            spent[0] += self._noisy(0.001)
            return
        for step in range(max(lengths)):
            self._forward(self.truth.draft_s, sum(n > step for n in lengths), spent)

    def _verify(self, rounds, blocks) -> None:
        plain = all(r.plan.kind is PlanKind.OFF for r in rounds) or (
            len(rounds) == 1 and not blocks[0]
        )
        burst = DECODE_TOKENS if plain else 1
        spent, hop = [0.0, 0, 0], self._noisy(self.truth.hop_s)
        for _ in range(burst):
            self._forward(self.truth.full_s, sum(block + 1 for block in blocks), spent)
        for r, block in zip(rounds, blocks, strict=True):
            three = r.plan.kind is PlanKind.THREE_TIER
            kept = self._kept(self.truth.a2 if three else self.truth.a0, block)
            r.seconds += spent[0] + hop
            r.tokens = kept + 1 if block else burst
            if self.controller is not None and r.plan.kind is not PlanKind.OFF:
                rate = Rate.SLIM_FULL if three else Rate.DRAFT_FULL
                asked = (0, 0) if three else tuple(self._stats[id(r)][2:])
                self.controller.saw_verdicts(Verdicts(rate, min(kept + 1, block), kept, *asked))
        if self.controller is not None:
            self.controller.saw_step(TierTiming(Tier.FULL, *spent))
            self.controller.saw_hop(Tier.FULL, hop)

    def _kept(self, rate: float, length: int) -> int:
        return int(min(self.rng.geometric(1 - rate) - 1, length)) if rate < 1 else length

    def _forward(self, seconds: Seconds, rows: int, spent: list) -> None:
        spent[0] += self._noisy(seconds(rows)) * self.truth.speed
        spent[1] += 1
        spent[2] += rows

    def _noisy(self, seconds: float) -> float:
        return seconds * math.exp(self.rng.normal(-(self.noise**2) / 2, self.noise))


def cost(rounds: list[Round]) -> float:
    """Seconds per token."""
    return sum(r.seconds for r in rounds) / sum(r.tokens for r in rounds)


def kind_changes(rounds: list[Round]) -> int:
    """How often the kind in force changed; probes are not in force."""
    kinds = [r.plan.kind for r in rounds if not r.probe]
    return sum(a is not b for a, b in itertools.pairwise(kinds))


def model_of(truth: Truth) -> CostModel:
    """The cost model that knows the truth."""
    draft_s = (lambda rows: 0.0) if truth.lookup else truth.draft_s
    times = {
        Tier.DRAFT: TierCost(draft_s, 0.001 * truth.lookup, truth.hop_s),
        Tier.SLIM: TierCost(truth.slim_s, hop_s=truth.hop_s),
        Tier.FULL: TierCost(truth.full_s, hop_s=truth.hop_s),
    }
    rates = Rates(truth.a0, truth.a1, truth.a2, truth.hit_frac)
    return CostModel(times, rates, DECODE_TOKENS)
