"""One simulation from its setup to its figures."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context

import numpy as np

from cluster.errors import ConfigError
from cluster.simulate.desk import Asked
from cluster.simulate.keeper import Moment
from cluster.simulate.setup import Setup
from cluster.simulate.stage import Stage
from policies.vocabulary import Plan, PlanKind

_SETTLING = 0.15
"""Of open arrivals, the first share that is not counted: the fleet fills up and learns."""
_MILLION, _HOUR_S = 1e6, 3600.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. Counted from the first counted arrival to the last one (`span_s`); of
    closed traffic from the beginning to the end. `ttft_s`: until a first token is there;
    `token_s`: of each answer, seconds of a token after the first; `gap_s`: between two pieces of
    a stream, which may hold several tokens. `util_frac`, `workers`: means
    by pool. `cost_per_mtok`: of a million tokens in the fleet's currency, None without prices.
    `shares`: of the tokens by the kind of plan. `skipped`: rounds that went on without the
    cheap pool. `cpu_s`: that the simulation took."""

    name: str
    plan: str
    requests: int
    tokens: int
    span_s: float
    tokens_per_s: float
    ttft_s: Spread
    token_s: Spread
    gap_s: Spread
    util_frac: dict[str, float]
    workers: dict[str, float]
    cost_per_mtok: float | None
    full_rows_per_token: float
    shares: dict[str, float]
    skipped: int
    moved: int
    evicted: int
    cpu_s: float
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class _Mark:
    """Totals at an instant."""

    at_s: float
    tokens: int
    busy_s: dict[str, float]
    paid_s: dict[str, float]


class _Simulation:
    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        seeds = random.Random(setup.seed)
        arriving = random.Random(seeds.getrandbits(64))
        stage = self._stage = Stage(setup, seeds, self._done)
        self.clock, self.desk, self.keeper = stage.clock, stage.desk, stage.keeper
        self._traffic = setup.traffic
        self._lengths = arriving
        self._times = self._traffic.arrivals(random.Random(arriving.getrandbits(64)))
        self.tokens_asked: list[int] = []
        self.finished = 0
        self.ttft_s, self.token_s, self.gap_s = array("d"), array("d"), array("d")
        self._counted_from = 0 if self._traffic.closed else int(_SETTLING * self._traffic.requests)
        self.marks: list[_Mark] = []

    def run(self) -> None:
        if self._traffic.closed is not None:
            self.mark()
            for _ in range(min(self._traffic.closed, self._traffic.requests)):
                self._ask()
        else:
            self._next()
        self.keeper.tick()
        self.clock.run(lambda: self.finished < self._traffic.requests)
        if self._traffic.closed is not None:
            self.mark()

    def _next(self) -> None:
        """The next arrival of open traffic."""
        if (when := next(self._times, None)) is not None:
            self.clock.at(when, self._arrive)

    def _arrive(self) -> None:
        number = self._ask()
        if number == self._counted_from:
            self.mark()
        if number == self._traffic.requests - 1:
            self.mark()
        self._next()

    def _ask(self) -> int:
        number = len(self.tokens_asked)
        prompt, answer = self._traffic.lengths(self._lengths)
        self.tokens_asked.append(answer)
        self._stage.ask(str(number), number, prompt, answer, self.setup.plan)
        return number

    def _done(self, asked: Asked) -> None:
        self.finished += 1
        spec = asked.session.spec
        if spec.sampling.seed >= self._counted_from:
            assert asked.first_s is not None
            self.ttft_s.append(asked.first_s - asked.arrived_s)
            if decoded := spec.max_tokens - 1:
                self.token_s.append((self.clock.now - asked.first_s) / decoded)
            self.gap_s.extend(asked.gaps_s)
        if self._traffic.closed is not None and len(self.tokens_asked) < self._traffic.requests:
            self._ask()

    def mark(self) -> None:
        now, pools = self.clock.now, self.keeper.pools
        self.marks.append(
            _Mark(
                now,
                self.desk.tokens,
                {pool.name: pool.computed_s() for pool in pools},
                {pool.name: pool.spent_s(now) for pool in pools},
            )
        )


def simulate(setup: Setup, name: str, clock: Callable[[], float] = time.process_time) -> Outcome:
    """Until the last request is answered. The same setup gives the same outcome, but for
    `cpu_s`, which is by `clock`. ConfigError where too few requests come to measure a speed."""
    begin = clock()
    played = _Simulation(setup)
    # It makes no cycles; looking for them took a fifth of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        played.run()
    finally:
        if collects:
            gc.enable()
    first, last = played.marks[0], played.marks[-1]
    span_s, tokens = last.at_s - first.at_s, last.tokens - first.tokens
    if not span_s or not tokens:
        raise ConfigError(
            f"{setup.traffic.requests} requests: none that counts had a token before the last one"
            " came, so there is no speed to tell; simulate more requests"
        )
    paid_s = {pool: last.paid_s[pool] - first.paid_s[pool] for pool in last.paid_s}
    busy_s = {pool: last.busy_s[pool] - first.busy_s[pool] for pool in last.busy_s}
    all_tokens = played.desk.tokens_by
    workers = [worker for pool in played.keeper.pools for worker in pool.workers]
    return Outcome(
        name=name,
        plan="auto" if setup.plan is None else _shape(setup.plan),
        requests=setup.traffic.requests,
        tokens=tokens,
        span_s=span_s,
        tokens_per_s=tokens / span_s,
        ttft_s=_spread(played.ttft_s),
        token_s=_spread(played.token_s),
        gap_s=_spread(played.gap_s),
        util_frac={pool: busy_s[pool] / paid if (paid := paid_s[pool]) else 0.0 for pool in busy_s},
        workers={pool: paid / span_s for pool, paid in paid_s.items()},
        cost_per_mtok=_cost(setup, paid_s, tokens),
        full_rows_per_token=sum(worker.full_rows for worker in workers) / all_tokens.total(),
        shares={str(kind): count / all_tokens.total() for kind, count in all_tokens.items()},
        skipped=played.desk.skipped,
        moved=played.desk.moved,
        evicted=sum(worker.memory.evicted for worker in workers),
        cpu_s=clock() - begin,
        moments=tuple(played.keeper.moments),
    )


def simulate_all(
    setups: Mapping[str, Setup],
    jobs: int | None = None,
    saw: Callable[[], None] = lambda: None,
) -> tuple[Outcome, ...]:
    """Each in a process of its own, `jobs` at a time (None: as many as there are cores); one
    alone here. They share nothing, so the figures do not depend on it. `saw` is called for each
    that is done."""
    jobs = min(jobs or os.cpu_count() or 1, len(setups))
    if jobs == 1:
        outcomes = []
        for name, setup in setups.items():
            outcomes.append(simulate(setup, name))
            saw()
        return tuple(outcomes)
    others = set(active_children())
    # Spawned: a fork would take whatever threads hold with it.
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        with _ctrl_c_ignored():  # and by the processes too, which inherit it
            running = [pool.submit(simulate, setup, name) for name, setup in setups.items()]
        try:
            for done in as_completed(running):
                done.result()
                saw()
        except BaseException:  # Ctrl-C: a simulation looks at nothing before its end
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(active_children()) - others:
                child.terminate()
            raise
        return tuple(each.result() for each in running)


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # no handler to change
        yield
        return
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _shape(plan: Plan) -> str:
    match plan.kind:
        case PlanKind.OFF:
            return "off"
        case PlanKind.TWO_TIER:
            return f"two_tier, gamma {plan.gamma}"
        case kind:
            return f"{kind}, gamma {plan.gamma}, block {plan.block}"


def _spread(values: array[float]) -> Spread:
    p50, p99 = np.percentile(values, (50, 99)) if values else (0.0, 0.0)
    return Spread(float(p50), float(p99))


def _cost(setup: Setup, paid_s: dict[str, float], tokens: int) -> float | None:
    pools = {"large": setup.large} | ({"cheap": setup.cheap} if setup.cheap else {})
    total = 0.0
    for name, pool in pools.items():
        if pool.price_per_hour is None:
            return None
        total += paid_s[name] * pool.price_per_hour / _HOUR_S
    return total / tokens * _MILLION
