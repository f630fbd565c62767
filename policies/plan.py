"""The controller behind mode `auto`: which plan a session plays next, so that serving is never
slower than plain decoding. DESIGN section 4.

Pure: it knows neither clock nor sessions; time passes by its choices, and the caller draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from policies.costs import CostModel, Rates, cheapest, probe_cost
from policies.estimates import TierTiming
from policies.evidence import RATES_OF, Evidence, Verdicts, Windows
from policies.plan_settings import ControllerSettings
from policies.pressure import Pressure, pressed, unhurried
from policies.vocabulary import Plan, PlanKind, Tier

_HOPELESS = 1.5
"""So many times slower than the plan in force: probes of it are doubled apart."""
_NEAR = 1.2
"""Up to so many times slower a kind is probed by all sessions at once: only that shows its
steps as they would be."""
_MAX_BURNS = 2.0


class Reason(StrEnum):
    """Why a plan is in force, or was played once."""

    INITIAL = "initial"
    CHEAPEST = "cheapest"
    WITHIN_MARGIN = "within margin"
    LOSING = "the one before lost to off"
    UNAVAILABLE = "a tier is missing"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Choice:
    """A plan for one session's next round. `costs`: predicted seconds per committed token of
    the best shape of each kind whose times are known; do not change it. `patience_s`: seconds
    that its block may wait for a worker; after more of them plain decoding is quicker."""

    plan: Plan
    reason: Reason
    probe: bool
    costs: Mapping[PlanKind, float]
    patience_s: float = math.inf


@dataclass(frozen=True, slots=True)
class _Probe:
    """`rounds`: how many choices in a row it is played for, once drawn."""

    plan: Plan
    probability: float
    hopeless: bool
    rounds: int = 1


class Controller:
    """One router's. The plan in force is that of all its sessions in mode `auto`."""

    def __init__(self, settings: ControllerSettings | None = None) -> None:
        self._settings = settings = settings or ControllerSettings()
        self._evidence = Evidence(
            Windows(settings.call_window, settings.token_window, settings.stale_rounds)
        )
        self._plan = settings.initial
        self._reason = Reason.INITIAL
        self._burns = dict.fromkeys(RATES_OF, 0.0)
        self._tries = dict.fromkeys(RATES_OF, 0)
        self._rounds = 0
        self._aged_at = 0
        self._searched_at = 0
        self._seen = self._model = CostModel({}, self._evidence.model(1).rates)
        self._pressure: dict[Tier, Pressure] = {}
        self._patience_s = math.inf
        self._best: dict[int, dict[PlanKind, tuple[Plan, float]]] = {}
        self._situation: tuple[int, frozenset[Tier]] | None = None
        self._load = 1
        self._costs: dict[PlanKind, float] = {}
        self._probes: list[_Probe] = []
        self._stint: tuple[Plan, int] = (settings.initial, 0)

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        return self._plan

    def saw_step(self, timing: TierTiming, prompt_rows: int = 0) -> None:
        """What one worker call computed on one tier, `prompt_rows` of its rows for prompts."""
        longest = max(self._settings.max_block, self._settings.max_gamma) + 1
        self._evidence.saw_step(timing, 2 * longest * self._load, prompt_rows)

    def saw_hop(self, tier: Tier, seconds: float) -> None:
        """What a call to the worker that hosts `tier` took beyond its computing."""
        self._evidence.saw_hop(tier, seconds)

    def saw_verdicts(self, verdicts: Verdicts) -> None:
        """What one session's round said of the tiers' agreement."""
        self._evidence.saw_verdicts(verdicts)

    def under(self, pressure: Mapping[Tier, Pressure]) -> None:
        """What the tiers' workers are under from now on; tiers left out are under none."""
        if pressure != self._pressure:
            self._pressure = dict(pressure)
            self._model = pressed(self._seen, self._pressure)
            self._best.clear()
            self._situation = None

    def choose(self, load: int, available: frozenset[Tier], draw: float) -> Choice:
        """The plan of one session's next round.

        `load` sessions share full's steps now; `available`: the tiers present; `draw` is
        uniform in [0, 1) and decides on probing.
        """
        assert load >= 1, load
        self._rounds += 1
        fresh = self._refresh()
        # Of large loads the leading bits will do.
        load -= load % (1 << max(load.bit_length() - 4, 0))
        if fresh or self._situation != (load, available):
            self._situation = (load, available)
            self._load = load
            self._decide(load, available)
        plan, left = self._stint
        if left and plan.kind is not self._plan.kind and plan.kind.tiers <= available:
            self._stint = (plan, left - 1)
            return Choice(plan, Reason.PROBE, True, self._costs)
        for probe in self._probes:
            if draw < probe.probability:
                self._tries[probe.plan.kind] += probe.hopeless
                self._stint = (probe.plan, probe.rounds - 1)
                return Choice(probe.plan, Reason.PROBE, True, self._costs)
            draw -= probe.probability
        return Choice(self._plan, self._reason, False, self._costs, self._patience_s)

    def refused(self, choice: Choice) -> None:
        """The probe chosen last is not played; it was no try."""
        kind = choice.plan.kind
        self._tries[kind] = max(self._tries[kind] - 1, 0)
        self._stint = (choice.plan, 0)

    def _refresh(self) -> bool:
        """Take a new model once enough was seen; whether that was so."""
        seen = self._evidence.count - self._searched_at
        if self._rounds > 1 and seen < self._settings.refresh:
            return False
        self._searched_at = self._evidence.count
        rounds, self._aged_at = self._rounds - self._aged_at, self._rounds
        self._evidence.age(rounds)
        faded = 0.5 ** (rounds / self._settings.stale_rounds)
        self._burns = {kind: burns * faded for kind, burns in self._burns.items()}
        self._seen = self._evidence.model(self._settings.decode_tokens)
        self._model = pressed(self._seen, self._pressure)
        self._best.clear()
        return True

    def _decide(self, load: int, available: frozenset[Tier]) -> None:
        settings = self._settings
        if load not in self._best:
            self._best[load] = {
                kind: cheapest(self._model, kind, load, settings.max_gamma, settings.max_block)
                for kind in RATES_OF
                if self._model.knows(kind)
            }
        best = {k: v for k, v in self._best[load].items() if k.tiers <= available}
        self._costs = {kind: cost for kind, (_, cost) in best.items()}
        self._settle(load, available, best)
        known = self._model.knows(self._plan.kind)
        self._patience_s = unhurried(self._model, self._plan, load) if known else math.inf
        kinds = [k for k in RATES_OF if k is not self._plan.kind and k.tiers <= available]
        self._probes = [self._probe(kind, load, best, len(kinds)) for kind in kinds]

    def _settle(
        self, load: int, available: frozenset[Tier], best: Mapping[PlanKind, tuple[Plan, float]]
    ) -> None:
        """Change the plan in force where that pays; leaving what loses to OFF needs the least."""
        settings, kind = self._settings, self._plan.kind
        proven = {k: cost for k, (_, cost) in best.items() if self._proven(k)}
        rival = min(proven, key=proven.__getitem__, default=PlanKind.OFF)
        if not kind.tiers <= available:
            self._enter(best.get(rival, (Plan(PlanKind.OFF), 0.0))[0], Reason.UNAVAILABLE)
            return
        plain = proven.get(PlanKind.OFF, math.inf)
        if kind not in proven:
            # Where the best of luck would not do, its rates need not be known.
            if kind in best and self._ideal(load) > plain:
                self._enter(Plan(PlanKind.OFF), Reason.LOSING)
            return
        current = self._model.cost(self._plan, load)
        if proven[kind] < current * (1 - settings.shape_margin):
            self._enter(best[kind][0], Reason.CHEAPEST)
            current = proven[kind]
        if current > plain * (1 + settings.leave_margin):
            self._burns[kind] = min(self._burns[kind] + 1, _MAX_BURNS)
            if proven[rival] > plain * (1 - self._margin(rival)):
                rival = PlanKind.OFF
            self._enter(best[rival][0], Reason.LOSING)
        elif proven[rival] < current * (1 - self._margin(rival)):
            self._enter(best[rival][0], Reason.CHEAPEST)
        elif self._reason is not Reason.LOSING:
            self._reason = Reason.CHEAPEST if rival is kind else Reason.WITHIN_MARGIN

    def _ideal(self, load: int) -> float:
        """The cost of the plan in force if every token were accepted."""
        return replace(self._model, rates=Rates(1.0, 1.0, 1.0)).cost(self._plan, load)

    def _enter(self, plan: Plan, reason: Reason) -> None:
        self._plan, self._reason = plan, reason

    def _margin(self, kind: PlanKind) -> float:
        return self._settings.margin * 2 ** self._burns[kind]

    def _proven(self, kind: PlanKind) -> bool:
        return self._evidence.tokens(kind) >= self._settings.min_tokens

    def _probe(
        self,
        kind: PlanKind,
        load: int,
        best: Mapping[PlanKind, tuple[Plan, float]],
        num_probed: int,
    ) -> _Probe:
        """How often to play a kind that is not in force.

        So often that its share of the budget pays for what a probe costs beyond the plan in
        force; within bounds, and never never.
        """
        settings = self._settings
        waits = min(self._tries[kind], settings.max_doublings)
        if kind not in best or self._plan.kind not in best:
            gamma, block = min(2, settings.max_gamma), min(4, settings.max_block)
            probability = max(settings.learn_frac / 2**waits, settings.probe_floor)
            return _Probe(Plan(kind, gamma, block), probability, hopeless=True)
        plan, cost = best[kind]
        current = self._model.cost(self._plan, load)
        hopeless = cost > _HOPELESS * current
        if not hopeless:
            self._tries[kind] = waits = 0
        near = cost < _NEAR * current and self._proven(kind)
        rounds = load if near else 1
        extra = (cost / current - 1) if near else probe_cost(self._model, self._plan, plan, load)
        promising = cost < current and not self._proven(kind)
        cap = settings.learn_frac if promising else settings.probe_cap
        share = settings.probe_budget / num_probed / 2**waits
        frac = share / extra if extra * cap > share else cap
        return _Probe(plan, max(frac, settings.probe_floor) / rounds, hopeless, rounds)
