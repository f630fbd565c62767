"""Laws of the lossy screening: what the gate lets through, and what it never does."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.ngram import NgramEngine
from actors.tiers import TierHost
from policies.gates import Gate, GateKind, Region, region
from policies.vocabulary import Plan, PlanKind, Tier
from policies.work import WorkKind
from tests.engine.test_tiers import PROMPT, SEED, Host, item

GATES = st.sampled_from(
    [
        Gate(kind, accept, escalate, mu)
        for kind in GateKind
        for accept, escalate, mu in (
            (0.7, 0.5, 0.3),
            (0.2, 0.0, 0.0),
            (0.99, 0.6, 0.9),
            (1.0, 0.5, 0.5),
        )
    ]
)
CLOSED = Gate(GateKind.RATIO, 1.0, 0.0)


def expected(host: Host, plan: Plan, num: int, stops) -> tuple[list[int], list[Tier], int]:
    """The block, token by token, by the rule: ids, tiers, how many are cleared."""
    draft, slim = host.engines[Tier.DRAFT], host.engines[Tier.SLIM]
    ids, tiers = list(PROMPT), []
    while len(tiers) < num:
        run = list(ids)
        for _ in range(min(plan.gamma, num - len(tiers))):
            run.append(draft.choose(run, SEED))
            if run[-1] in stops:
                break
        for at in range(len(ids), len(run)):
            own = slim.choose(run[:at], SEED)
            verdict = slim.judge(run[:at], SEED, run[at])
            where = region(plan.gate, verdict.ratio, verdict.margin)
            if where is Region.ESCALATE or {own, run[at]} & set(stops):
                cleared = len(tiers)
                return run[len(PROMPT) :], tiers + [Tier.DRAFT] * (len(run) - at), cleared
            if where is Region.REPLACE:
                ids = [*run[:at], own]
                tiers.append(Tier.SLIM)
                break
            tiers.append(Tier.DRAFT)
            ids = run[: at + 1]
    return ids[len(PROMPT) :], tiers, len(tiers)


@given(
    gate=GATES,
    gamma=st.integers(1, 6),
    num=st.integers(1, 12),
    draft=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    slim=st.sampled_from([0.0, 0.6, 1.0]),
    stops=st.sets(st.integers(0, 49), max_size=6),
)
def test_the_gate_decides_token_by_token(gate, gamma, num, draft, slim, stops):
    host = Host(draft, slim)
    plan = Plan(PlanKind.VIA, gamma, num, gate=gate)
    reply = host.one(item(WorkKind.PROPOSE, PROMPT, num=num, plan=plan, stops=stops))
    ids, tiers, cleared = expected(host, plan, num, stops)
    assert (list(reply.tokens), list(reply.tiers), len(reply.cleared)) == (ids, tiers, cleared)
    assert not set(reply.tokens[:cleared]) & stops, "the end is never slim's to decide"


@given(gamma=st.integers(1, 6), num=st.integers(1, 12), slim=st.sampled_from([0.0, 0.6, 1.0]))
def test_a_closed_gate_leaves_the_whole_draft_to_full(gamma, num, slim):
    host = Host(slim=slim)
    plan = Plan(PlanKind.VIA, gamma, num, gate=CLOSED)
    reply = host.one(item(WorkKind.PROPOSE, PROMPT, num=num, plan=plan))
    assert reply.cleared == ()
    assert reply.tokens == host.decoded(Tier.DRAFT, PROMPT, min(gamma, num))


def test_a_cleared_token_has_slims_logarithm_of_itself():
    host = Host(draft=1.0, slim=1.0)
    plan = Plan(PlanKind.VIA, 4, 4, gate=Gate(GateKind.RATIO))
    reply = host.one(item(WorkKind.PROPOSE, PROMPT, num=4, plan=plan))
    ids = [*PROMPT, *reply.tokens]
    slim = host.engines[Tier.SLIM]
    told = [slim.judge(ids[:at], SEED, ids[at]).logprob for at in range(len(PROMPT), len(ids))]
    assert reply.cleared == tuple(told)
    assert all(math.isfinite(value) for value in reply.cleared)


@pytest.mark.parametrize("shadow", [None, Gate(GateKind.RATIO, 0.5, 0.1)])
def test_a_shadow_is_cast_only_where_it_is_asked_for(shadow):
    host = Host(draft=0.6, slim=0.9)
    plan = Plan(PlanKind.VIA, 6, 6, gate=CLOSED, shadow=shadow)
    reply = host.one(item(WorkKind.PROPOSE, PROMPT, num=6, plan=plan))
    slim, ids = host.engines[Tier.SLIM], [*PROMPT, *reply.tokens]
    count = 0
    for at in range(len(PROMPT), len(ids)):
        if shadow is None or slim.judge(ids[:at], SEED, ids[at]).ratio < shadow.theta_accept:
            break
        count += 1
    assert len(reply.shadow) == count


def test_a_draft_that_finds_nothing_proposes_nothing():
    host = Host()
    host.engines[Tier.DRAFT] = NgramEngine(4, 2)
    host.tiers = TierHost(host.engines, host.clock)
    plan = Plan(PlanKind.VIA, 4, 8, gate=Gate(GateKind.RATIO))
    reply = host.one(item(WorkKind.PROPOSE, (1, 2, 3), num=8, plan=plan))
    assert (reply.tokens, reply.cleared) == ((), ())
