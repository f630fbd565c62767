"""Laws of a lossy session: what it commits depends on no fault, and its audit misses nothing."""

import random

import pytest

from actors.engine.fake import FakeEngine
from actors.messages import StepRequest
from actors.tiers import TierHost
from policies.acceptance import accept_cascade
from policies.gates import Gate, GateKind
from policies.session import Session
from policies.transitions import State
from policies.vocabulary import Plan, PlanKind, Tier
from policies.work import WorkKind
from tests.actors.fakes import plain, spec

OPEN = Gate(GateKind.RATIO, 0.6, 0.3)
CLOSED = Gate(GateKind.RATIO, 1.0, 0.0)
VIA = Plan(PlanKind.VIA, gamma=3, block=7, gate=OPEN)


def host(draft: float = 0.8, slim: float = 0.9) -> TierHost:
    engines = {
        Tier.DRAFT: FakeEngine(agreement=draft, salt=1),
        Tier.SLIM: FakeEngine(agreement=slim, salt=2),
        Tier.FULL: FakeEngine(),
    }
    return TierHost(engines, lambda: 0.0)


def live(session: Session, rng: random.Random, faults: float = 0.0, audits: float = 0.0) -> list:
    """Run it to its end; all rows of the audit."""
    workers = {"cheap": host(), "large": host()}
    rows = []
    while session.state is not State.DONE:
        if session.wants_audit and rng.random() < audits:
            item = session.dispatch_audit("large", rng.randrange(2, 9))
            [reply] = workers["large"].step(StepRequest((item,)))
            rows += session.on_audit_reply("large", reply)
            continue
        name = "cheap" if session.wants is WorkKind.PROPOSE else "large"
        item = session.dispatch(name, rng.randrange(8, 20), rng.randrange(1, 4))
        if rng.random() < faults:
            workers[name] = host()
            session.on_lost(name)
            continue
        [reply] = workers[name].step(StepRequest((item,)))
        if (commit := session.on_reply(name, reply)) is not None:
            rows += commit.audited
    assert not session.wants_audit
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_via_with_a_closed_gate_commits_plain_decoding(seed):
    asked = spec("s", Plan(PlanKind.VIA, 3, 7, gate=CLOSED), seed=seed, max_tokens=40)
    session = Session(asked, audit_share=1.0)
    assert live(session, random.Random(seed)) == []
    assert session.tokens[3:] == plain(asked)
    assert (session.counters.unseen, session.counters.lenient) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_faults_and_audits_change_no_token_of_via(seed):
    asked = spec("s", VIA, seed=seed, max_tokens=60, stop_ids={7})
    quiet = Session(asked)
    live(quiet, random.Random(1))
    for share in (0.0, 0.5, 1.0):
        shaken = Session(asked, audit_share=share)
        live(shaken, random.Random(seed), faults=0.2, audits=0.3)
        assert shaken.tokens == quiet.tokens
        assert shaken.counters.unseen == quiet.counters.unseen > 0


@pytest.mark.parametrize("audits", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(10))
def test_every_drawn_token_is_looked_at_once_and_truly(seed, audits):
    asked = spec("s", VIA, seed=seed, max_tokens=80)
    session = Session(asked, audit_share=1.0)
    rows = live(session, random.Random(seed), audits=audits)
    assert len(rows) == session.counters.unseen > 0
    assert not any(row.escalated for row in rows)
    full = FakeEngine()
    differ = sum(
        full.choose(session.tokens[:at], seed) != session.tokens[at]
        for at in range(3, len(session.tokens))
    )
    assert sum(row.disagrees for row in rows) == differ, "the other tokens are full's own"


def test_only_drawn_tokens_enter_the_random_sample():
    asked = spec("s", VIA, seed=3, max_tokens=400)
    session = Session(asked, audit_share=0.3)
    rows = live(session, random.Random(3), audits=0.2)
    drawn = [row for row in rows if not row.escalated]
    assert 0 < len(drawn) < session.counters.unseen
    assert any(row.escalated for row in rows)
    unaudited = Session(asked)
    assert all(row.escalated for row in live(unaudited, random.Random(3)))


@pytest.mark.parametrize("seed", range(10))
def test_behind_a_closed_gate_the_shadow_is_judged_up_to_the_first_difference(seed):
    plan = Plan(PlanKind.VIA, 3, 7, gate=CLOSED, level=4, shadow=OPEN)
    session = Session(spec("s", plan, seed=seed, max_tokens=60))
    rows = live(session, random.Random(seed))
    assert rows
    assert {(row.level, row.escalated) for row in rows} == {(4, False)}
    assert session.counters.unseen == 0


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_cascade_commits_by_its_own_rule(seed, alpha):
    asked = spec("s", Plan(PlanKind.CASCADE, gamma=4, alpha=alpha), seed=seed, max_tokens=40)
    session = Session(asked)
    live(session, random.Random(seed))
    draft, full = FakeEngine(agreement=0.8, salt=1), FakeEngine()
    # The first token is decoded plainly under every plan.
    tokens, lenient = [1, 2, 3, full.choose([1, 2, 3], seed)], 0
    while len(tokens) < 43:
        block = []
        for _ in range(min(4, 43 - len(tokens) - 1)):
            block.append(draft.choose([*tokens, *block], seed))
        before = [[*tokens, *block[:i]] for i in range(len(block) + 1)]
        chosen = [full.choose(ids, seed) for ids in before]
        ratios = [
            full.judge(ids, seed, drafted).ratio
            for ids, drafted in zip(before, block, strict=False)
        ]
        committed = accept_cascade(block, chosen, ratios, alpha)
        lenient += sum(a != b for a, b in zip(committed, chosen, strict=False))
        tokens += committed
    assert session.tokens == tokens
    assert session.counters.lenient == lenient
    assert (lenient > 0) == (alpha > 0)
