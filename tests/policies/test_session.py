"""Law of a session: it commits plain decoding of the full tier, once, whatever happens to it."""

import random
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from policies import session as session_module
from policies.session import Session
from policies.transitions import TRANSITIONS, Event, State
from policies.vocabulary import (
    FinishReason,
    Plan,
    PlanKind,
    SamplingParams,
    SamplingSpec,
    SessionSpec,
    Tier,
)
from policies.work import ReplyStatus, WorkKind, WorkReply
from tests.policies.workers import (
    VOCAB,
    FakeWorker,
    agreeing,
    full_law,
    logprobs_of,
    plain_decoding,
)

EXACT = [kind for kind in PlanKind if kind.exact]
PLANS = st.builds(Plan, st.sampled_from(EXACT), gamma=st.integers(1, 5), block=st.integers(1, 7))
SPECS = st.builds(
    lambda prompt, done, tokens, stops, plan, num_logprobs: SessionSpec(
        session_id="s",
        tokens=tuple(prompt + continued(prompt, done)),
        sampling=SamplingSpec(SamplingParams(), seed=1, choice=0, prompt_len=len(prompt)),
        max_tokens=tokens + done,
        stop_ids=frozenset(stops),
        plan=plan,
        num_logprobs=num_logprobs,
    ),
    prompt=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12),
    done=st.integers(0, 3),
    tokens=st.integers(1, 25),
    stops=st.sets(st.integers(VOCAB - 1, VOCAB)),
    plan=PLANS,
    num_logprobs=st.sampled_from([None, 0]),
)
AGREEMENT = st.sampled_from([0.0, 0.5, 0.9, 1.0])
ROWS = st.integers(1, 20)


def continued(prompt: list[int], length: int) -> list[int]:
    """What was already committed elsewhere."""
    tokens = list(prompt)
    for _ in range(length):
        tokens.append(full_law(tokens))
    return tokens[len(prompt) :]


def spec_of(plan: Plan, max_tokens: int = 30, prompt=(1, 2, 3), stops=()) -> SessionSpec:
    sampling = SamplingSpec(SamplingParams(), seed=1, choice=0, prompt_len=len(prompt))
    return SessionSpec("s", tuple(prompt), sampling, max_tokens, frozenset(stops), plan)


def drive(session: Session, worker: FakeWorker, max_rows: int = 64, burst: int = 1) -> list[int]:
    """Run it to its end on one worker; the tokens in the order of their commits."""
    committed: list[int] = []
    for _ in range(10_000):
        if session.wants is None:
            return committed
        commit = session.on_reply("w", worker.do(session.dispatch("w", max_rows, burst)))
        committed += commit.tokens if commit else ()
    raise AssertionError("it does not come to an end")


class AnyLife(RuleBasedStateMachine):
    """A session among workers that forget, vanish, answer late, twice or for somebody else."""

    @initialize(spec=SPECS, draft=AGREEMENT, slim=AGREEMENT)
    def open(self, spec, draft, slim):
        self.session = Session(spec)
        self.plain = plain_decoding(spec)
        self.commits = []
        self.old_replies = []
        self.in_flight = None
        laws = agreeing(draft, 1), agreeing(slim, 2)
        self.cheap = {name: FakeWorker(*laws) for name in ("cheap-a", "cheap-b", "both")}
        self.large = {name: FakeWorker(*laws) for name in ("large-a", "large-b")}
        self.large["both"] = self.cheap["both"]

    def workers(self) -> dict[str, FakeWorker]:
        return self.cheap | self.large

    @precondition(lambda self: self.session.wants is not None)
    @rule(data=st.data(), max_rows=ROWS, burst=st.integers(1, 6))
    def dispatch(self, data, max_rows, burst):
        session = self.session
        pool = self.cheap if session.wants is WorkKind.PROPOSE else self.large
        name = data.draw(st.sampled_from(sorted(pool)))
        wanted, plan, left = session.rows_wanted(name), session.plan, session.remaining
        item = session.dispatch(name, max_rows, burst)
        rows = len(item.tokens)
        # A block is not split: the last row of the prefix goes with it at the least.
        assert rows <= max(max_rows, 1 + (item.num_tokens if item.kind is WorkKind.VERIFY else 0))
        assert rows <= wanted
        # The block to verify may be of an earlier plan.
        limits = {
            WorkKind.DECODE: burst,
            WorkKind.PROPOSE: plan.block_len,
            WorkKind.EXTEND: 0,
            WorkKind.ROUNDS: left,
        }
        assert item.num_rounds <= burst
        assert item.num_tokens <= limits.get(item.kind, len(item.tokens) - 1)
        self.in_flight = name, item

    @precondition(lambda self: self.in_flight is not None)
    @rule()
    def answer(self):
        name, item = self.in_flight
        worker = self.workers()[name]
        reply = worker.do(item)
        if reply.status is ReplyStatus.OK:
            assert worker.do(item) == reply
        self.in_flight = None
        self.old_replies.append((name, reply))
        self.take(name, reply)

    @precondition(lambda self: self.old_replies)
    @rule(data=st.data())
    def answer_again_or_late(self, data):
        name, reply = data.draw(st.sampled_from(self.old_replies))
        before = self.session.state
        assert self.session.on_reply(name, reply) is None
        assert self.session.state is before

    @precondition(lambda self: self.in_flight is not None)
    @rule()
    def answer_of_a_stranger(self):
        _, item = self.in_flight
        reply = WorkReply("s", item.ticket, ReplyStatus.OK, tokens=(0,), tiers=(Tier.FULL,))
        assert self.session.on_reply("stranger", reply) is None

    @precondition(lambda self: self.in_flight is not None)
    @rule(keep_reply=st.booleans())
    def lose_the_worker_in_flight(self, keep_reply):
        name, item = self.in_flight
        if keep_reply:
            self.old_replies.append((name, self.workers()[name].do(item)))
        self.in_flight = None
        self.workers()[name].held.clear()
        self.session.on_lost(name)
        assert name not in self.session.workers

    @rule(data=st.data())
    def lose_an_idle_worker(self, data):
        busy = {self.in_flight[0]} if self.in_flight else set()
        name = data.draw(st.sampled_from(sorted(self.workers().keys() - busy)))
        self.workers()[name].held.clear()
        self.session.on_lost(name)

    @rule(data=st.data())
    def forget_at_a_worker(self, data):
        self.workers()[data.draw(st.sampled_from(sorted(self.workers())))].held.clear()

    @rule(plan=PLANS)
    def change_the_plan(self, plan):
        drafted = self.session.wants in (WorkKind.PROPOSE, WorkKind.ROUNDS)
        if not drafted or plan.kind is not PlanKind.OFF:
            self.session.plan = plan

    @rule(data=st.data())
    def play_rounds_in_one_worker_or_in_several(self, data):
        tiers = data.draw(st.sampled_from([tuple(Tier), (Tier.DRAFT, Tier.FULL), (Tier.FULL,)]))
        if self.session.wants in (WorkKind.PROPOSE, WorkKind.ROUNDS):
            self.session.share(self.session.may_share(tiers))

    @precondition(lambda self: self.session.wants is WorkKind.PROPOSE)
    @rule()
    def nobody_proposes(self):
        self.session.skip_proposing()

    @rule(chance=st.integers(0, 15))
    def cancel(self, chance):
        if chance == 0:
            done = self.session.finish
            self.session.cancel()
            self.in_flight = None
            assert self.session.finish is (done or FinishReason.CANCELLED)

    def take(self, name, reply):
        ticket_before = self.session.counters.rounds
        commit = self.session.on_reply(name, reply)
        if commit is not None:
            self.commits.append(commit)
            assert commit.tokens
            assert len(commit.tiers) == len(commit.tokens)
            asked = self.session.spec.num_logprobs is not None
            assert commit.logprobs == (logprobs_of(commit.tokens) if asked else ())
            assert commit.tiers[-1] is Tier.FULL or commit.finish
            assert commit.finish is self.session.finish
            assert commit.counters == self.session.counters
            assert commit.counters.rounds == ticket_before + max(len(reply.rounds), 1)

    @invariant()
    def commits_are_plain_decoding_each_token_once(self):
        if hasattr(self, "session"):
            start = len(self.session.spec.tokens)
            handed = [token for commit in self.commits for token in commit.tokens]
            assert self.session.tokens == [*self.session.spec.tokens, *handed]
            assert handed == self.plain[start : start + len(handed)]

    @invariant()
    def every_committed_token_is_counted_under_one_tier(self):
        if hasattr(self, "session"):
            c = self.session.counters
            committed = len(self.session.tokens) - len(self.session.spec.tokens)
            assert c.from_draft + c.from_slim + c.from_full == committed
            tiers = [tier for commit in self.commits for tier in commit.tiers]
            assert tiers.count(Tier.DRAFT) == c.from_draft <= c.draft_tokens
            assert tiers.count(Tier.SLIM) == c.from_slim

    @invariant()
    def it_ends_with_a_reason_and_wants_nothing_then(self):
        if hasattr(self, "session"):
            session = self.session
            assert (session.state is State.DONE) == (session.finish is not None)
            if session.finish in (FinishReason.STOP, FinishReason.LENGTH):
                assert session.tokens == self.plain
                assert session.wants is None

    def teardown(self):
        """Left alone, it always comes to the end of plain decoding."""
        if hasattr(self, "session") and self.session.state is not State.DONE:
            if self.in_flight is not None:
                self.session.on_lost(self.in_flight[0])
            drive(self.session, FakeWorker(full_law, full_law), max_rows=3)
            assert self.session.tokens == self.plain


TestAnyLifeCommitsPlainDecoding = AnyLife.TestCase
TestAnyLifeCommitsPlainDecoding.settings = settings(
    max_examples=80, stateful_step_count=60, deadline=None
)


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize(("gamma", "block"), [(1, 1), (3, 5), (8, 4), (40, 40)])
@pytest.mark.parametrize("burst", [1, 4])
def test_every_plan_commits_what_plain_decoding_gives(kind, gamma, block, share, burst):
    spec = spec_of(Plan(kind, gamma, block), stops=(VOCAB - 1,) if share == 1.0 else ())
    worker = FakeWorker(agreeing(share, 1), agreeing(share, 2))
    committed = drive(Session(spec), worker, burst=burst)
    assert [*spec.tokens, *committed] == plain_decoding(spec)


def test_every_transition_is_used_and_no_other(monkeypatch):
    """A few hundred random lives with faults reach the whole table."""
    used: set[tuple[State, Event]] = set()

    class Recording(dict):
        def __getitem__(self, key):
            used.add(key)
            return super().__getitem__(key)

    monkeypatch.setattr(session_module, "TRANSITIONS", Recording(TRANSITIONS))
    rng = random.Random(5)
    for _ in range(900):
        live_at_random(rng)
    assert used == set(TRANSITIONS)


def live_at_random(rng: random.Random) -> None:
    kind = rng.choice([PlanKind.TWO_TIER, PlanKind.THREE_TIER, PlanKind.VIA, PlanKind.OFF])
    prompt = tuple(rng.randrange(VOCAB) for _ in range(rng.randrange(1, 15)))
    session = Session(spec_of(Plan(kind, 3, 5), rng.randrange(1, 12), prompt, stops=(VOCAB - 1,)))
    worker = FakeWorker(agreeing(0.8, 1), agreeing(0.8, 2))
    other = PlanKind.OFF if kind is not PlanKind.OFF else PlanKind.TWO_TIER
    while session.state is not State.DONE:
        if rng.random() < 0.05:
            session.cancel()
            continue
        drafted = session.wants in (WorkKind.PROPOSE, WorkKind.ROUNDS)
        if drafted and rng.random() < 0.3:
            session.share(rng.random() < 0.6 and session.may_share(Tier))
            continue
        if session.wants is WorkKind.PROPOSE and rng.random() < 0.1:
            session.skip_proposing()
            continue
        if not drafted and rng.random() < 0.1:
            session.plan = Plan(rng.choice([kind, other]), 3, 5)
        item = session.dispatch("w", rng.randrange(1, 9), rng.randrange(1, 4))
        if rng.random() < 0.05:
            session.cancel()
        if rng.random() < 0.1:
            worker.held.clear()
            session.on_lost("w")
        session.on_reply("w", worker.do(item))
    if kind is not PlanKind.VIA:
        assert session.tokens == plain_decoding(session.spec)[: len(session.tokens)]


def test_done_is_absorbing():
    assert not any(state is State.DONE for state, _ in TRANSITIONS)
    assert set(State) == {state for state, _ in TRANSITIONS} | {State.DONE}
    assert all((state, Event.FINISHED) in TRANSITIONS for state in State if state != State.DONE)
    session = Session(spec_of(Plan(PlanKind.OFF)))
    item = session.dispatch("w", 64)
    session.cancel()
    session.cancel()
    session.on_lost("w")
    worker = FakeWorker(full_law, full_law)
    assert session.on_reply("w", worker.do(item)) is None
    assert (session.state, session.finish) == (State.DONE, FinishReason.CANCELLED)
    with pytest.raises(AssertionError):
        session.dispatch("w", 64)


def test_tickets_rise_and_an_answer_to_an_earlier_one_changes_nothing():
    session = Session(spec_of(Plan(PlanKind.OFF)))
    worker = FakeWorker(full_law, full_law)
    first = session.dispatch("w", 64)
    session.on_lost("w")
    second = session.dispatch("w", 64)
    assert second.ticket > first.ticket
    assert session.on_reply("w", worker.do(first)) is None
    assert session.state is State.BUSY_DECODE
    assert session.on_reply("w", worker.do(second)).tokens == (full_law([1, 2, 3]),)


@pytest.mark.parametrize("max_rows", [1, 2, 5, 16])
def test_a_long_prompt_goes_in_chunks_of_no_more_rows_than_allowed(max_rows):
    prompt = tuple(i % VOCAB for i in range(40))
    session = Session(spec_of(Plan(PlanKind.OFF), max_tokens=2, prompt=prompt))
    worker = FakeWorker(full_law, full_law)
    rows = 0
    for _ in prompt:
        item = session.dispatch("w", max_rows)
        assert len(item.tokens) <= max_rows
        assert item.start == rows, "no id travels twice"
        rows += len(item.tokens)
        if session.on_reply("w", worker.do(item)):
            break
    assert rows == len(prompt)


def test_a_worker_that_needs_the_prefix_is_sent_all_of_it():
    session = Session(spec_of(Plan(PlanKind.OFF)))
    worker = FakeWorker(full_law, full_law)
    session.on_reply("w", worker.do(session.dispatch("w", 64)))
    worker.held.clear()
    item = session.dispatch("w", 64)
    assert (item.start, len(item.tokens), item.open) == (3, 1, None)
    assert worker.do(item).status is ReplyStatus.NEED_PREFIX
    assert session.on_reply("w", worker.do(item)) is None
    again = session.dispatch("w", 64)
    assert (again.start, len(again.tokens)) == (0, 4)
    assert again.open is not None
    assert session.on_reply("w", worker.do(again)).tokens == (full_law(session.tokens[:4]),)


def test_a_block_outlives_the_worker_that_proposed_it_and_the_one_that_judged_it():
    session = Session(spec_of(Plan(PlanKind.TWO_TIER, gamma=4)))
    cheap, large = (FakeWorker(full_law, full_law) for _ in range(2))
    session.on_reply("large", large.do(session.dispatch("large", 64)))
    while session.wants is not WorkKind.VERIFY:
        name, worker = ("cheap", cheap) if session.wants is WorkKind.PROPOSE else ("large", large)
        session.on_reply(name, worker.do(session.dispatch(name, 64)))
    session.on_lost("cheap")
    session.dispatch("large", 64)
    session.on_lost("large")
    commit = session.on_reply("other", large.do(session.dispatch("other", 64)))
    assert commit.tiers == (*[Tier.DRAFT] * 4, Tier.FULL)


@pytest.mark.parametrize("kind", EXACT)
def test_a_stop_id_inside_an_accepted_run_ends_the_answer_there(kind):
    # Every prompt's plain decoding meets each of six ids before long.
    spec = spec_of(Plan(kind, gamma=12, block=12), max_tokens=500)
    stop = plain_decoding(spec)[7]
    spec = replace(spec, stop_ids=frozenset({stop}))
    session = Session(spec)
    committed = drive(session, FakeWorker(full_law, full_law), burst=12)
    assert session.finish is FinishReason.STOP
    assert committed.index(stop) == len(committed) - 1
    assert [*spec.tokens, *committed] == plain_decoding(spec)


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("max_tokens", [1, 2, 3, 9])
def test_no_more_than_max_tokens_are_committed_nor_asked_for(kind, max_tokens):
    session = Session(spec_of(Plan(kind, gamma=5, block=7), max_tokens=max_tokens))
    worker = FakeWorker(full_law, full_law)
    while session.wants is not None:
        item = session.dispatch("w", 64, decode_tokens=4)
        assert item.num_tokens <= session.remaining
        session.on_reply("w", worker.do(item))
    assert session.finish is FinishReason.LENGTH
    assert len(session.tokens) == 3 + max_tokens


@pytest.mark.parametrize(("stops", "reason"), [((), "length"), ((5,), "stop"), ((7,), "length")])
def test_what_a_worker_gives_beyond_the_limit_is_not_committed(stops, reason):
    session = Session(spec_of(Plan(PlanKind.OFF), max_tokens=2, stops=stops))
    item = session.dispatch("w", 64)
    eager = WorkReply("s", item.ticket, ReplyStatus.OK, tokens=(4, 5, 6, 7), tiers=(Tier.FULL,) * 4)
    commit = session.on_reply("w", eager)
    assert (commit.tokens, commit.finish) == ((4, 5), reason)
