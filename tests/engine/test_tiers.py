"""Laws of a worker's step: what is held, what is asked again, and the screening of blocks."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.fake import FakeEngine
from actors.engine.ngram import NgramEngine
from actors.messages import StepRequest
from actors.tiers import TierHost
from policies.session import prefix_crc
from policies.vocabulary import Plan, PlanKind, SamplingParams, SamplingSpec, Tier
from policies.work import Audited, ReplyStatus, SessionOpen, WorkItem, WorkKind
from tests.engine.toys import text

SEED = 7
OFF = Plan(PlanKind.OFF)
PROMPT = tuple(text(1, 6, 50))


class Clock:
    """Advanced by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Host:
    """A worker's tiers on fakes, with what they would decode alone."""

    def __init__(self, draft: float = 0.7, slim: float = 0.8, tiers=tuple(Tier)):
        made = {
            Tier.DRAFT: FakeEngine(agreement=draft, salt=1),
            Tier.SLIM: FakeEngine(agreement=slim, salt=2),
            Tier.FULL: FakeEngine(),
        }
        self.engines = {tier: made[tier] for tier in tiers}
        self.clock = Clock()
        self.tiers = TierHost(self.engines, self.clock, idle_timeout_s=60.0)

    def do(self, *items: WorkItem, release: tuple[str, ...] = ()):
        return self.tiers.step(StepRequest(items, release))

    def one(self, item: WorkItem):
        [reply] = self.do(item)
        return reply

    def decoded(self, tier: Tier, tokens, num_tokens: int, stops=()) -> tuple[int, ...]:
        """What the tier alone makes of it."""
        ids = list(tokens)
        while len(ids) < len(tokens) + num_tokens:
            ids.append(self.engines[tier].choose(ids, SEED))
            if ids[-1] in stops:
                break
        return tuple(ids[len(tokens) :])


@pytest.fixture
def host():
    made = Host()
    yield made
    made.tiers.release([f"s{i}" for i in range(9)])
    assert made.tiers.num_sessions == 0
    for engine in made.engines.values():
        assert engine.cached == {}


def item(
    kind: WorkKind,
    tokens,
    *,
    name: str = "s0",
    start: int = 0,
    num: int = 0,
    plan: Plan = OFF,
    prefix=(),
    stops=(),
    ticket: int = 1,
) -> WorkItem:
    spec = SamplingSpec(SamplingParams(), SEED, choice=0, prompt_len=1)
    return WorkItem(
        name,
        ticket,
        kind,
        start,
        tuple(tokens),
        prefix_crc(prefix),
        plan,
        num,
        SessionOpen(spec, frozenset(stops)) if start == 0 else None,
    )


def plan_of(kind: PlanKind, gamma: int, block: int) -> Plan:
    return Plan(kind, gamma, block)


@given(
    gamma=st.integers(1, 9),
    num=st.integers(1, 12),
    draft=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    slim=st.sampled_from([0.0, 0.6, 1.0]),
    prompt=st.lists(st.integers(0, 49), min_size=1, max_size=8),
    stops=st.sets(st.integers(0, 49), max_size=12),
)
def test_a_screened_block_is_what_slim_alone_decodes(gamma, num, draft, slim, prompt, stops):
    host = Host(draft, slim)
    plan = plan_of(PlanKind.THREE_TIER, gamma, num)
    reply = host.one(item(WorkKind.PROPOSE, prompt, num=num, plan=plan, stops=stops))
    assert reply.tokens == host.decoded(Tier.SLIM, prompt, num, stops)
    assert len(reply.tiers) == len(reply.tokens)
    assert reply.tiers.count(Tier.DRAFT) <= reply.draft_tokens
    assert reply.slim_passes <= len(reply.tokens), "each pass gives a token at the least"
    # Every drafted token is scored, and each pass scores one row more but for the last.
    assert reply.draft_tokens <= reply.slim_rows <= reply.draft_tokens + reply.slim_passes


@pytest.mark.parametrize(("agreement", "tier"), [(1.0, Tier.DRAFT), (0.0, Tier.SLIM)])
def test_a_kept_draft_token_is_the_drafts_and_any_other_slims(agreement, tier):
    host = Host(draft=agreement, slim=1.0)
    plan = plan_of(PlanKind.THREE_TIER, 8, 8)
    reply = host.one(item(WorkKind.PROPOSE, PROMPT, num=8, plan=plan))
    assert reply.tiers == (tier,) * 8


@given(
    longest=st.integers(1, 4),
    num=st.integers(1, 10),
    prompt=st.lists(st.integers(0, 3), min_size=1),
)
def test_a_draft_that_finds_nothing_leaves_slim_to_decode(longest, num, prompt):
    host = Host()
    host.engines[Tier.DRAFT] = NgramEngine(longest, 1)
    host.tiers = TierHost(host.engines, host.clock)
    plan = plan_of(PlanKind.THREE_TIER, 3, num)
    reply = host.one(item(WorkKind.PROPOSE, prompt, num=num, plan=plan))
    assert reply.tokens == host.decoded(Tier.SLIM, prompt, num)


@given(gamma=st.integers(1, 6), num=st.integers(1, 6), stops=st.sets(st.integers(0, 49)))
def test_a_two_tier_block_is_one_draft(gamma, num, stops):
    host = Host()
    plan = plan_of(PlanKind.TWO_TIER, gamma, 8)
    reply = host.one(item(WorkKind.PROPOSE, PROMPT, num=num, plan=plan, stops=stops))
    assert reply.tokens == host.decoded(Tier.DRAFT, PROMPT, min(gamma, num), stops)
    assert set(reply.tiers) == {Tier.DRAFT}
    assert (reply.slim_rows, host.engines[Tier.SLIM].forwards) == (0, 0)


@pytest.mark.parametrize("num", [1, 2, 7])
def test_decoding_is_the_full_tiers_and_stops_behind_a_stop_id(host, num):
    free = host.decoded(Tier.FULL, PROMPT, num)
    reply = host.one(item(WorkKind.DECODE, PROMPT, num=num))
    assert (reply.tokens, reply.tiers) == (free, (Tier.FULL,) * num)
    assert (reply.held, reply.full_rows) == (len(PROMPT) + num, num)
    stopped = host.one(item(WorkKind.DECODE, PROMPT, name="s1", num=num, stops=free[:1]))
    assert stopped.tokens == free[:1]


@given(tokens=st.lists(st.integers(0, 49), min_size=3, max_size=12), num=st.integers(1, 2))
def test_an_audit_tells_what_full_says_of_each_of_the_last_ids(tokens, num):
    host = Host()
    full = host.engines[Tier.FULL]
    reply = host.one(replace(item(WorkKind.AUDIT, tokens), num_audit=num))
    expected = [
        Audited(
            full.choose(tokens[:at], SEED) == token, full.judge(tokens[:at], SEED, token).logprob
        )
        for at, token in list(enumerate(tokens))[-num:]
    ]
    assert list(reply.audited) == expected
    assert (reply.tokens, reply.full_rows) == ((), num)


@given(
    block=st.lists(st.integers(0, 49), max_size=6),
    audit=st.integers(0, len(PROMPT) - 1),
    shadow=st.integers(0, 6),
)
def test_verifying_looks_at_the_ids_around_the_blocks_start_on_its_way(block, audit, shadow):
    host = Host()
    full = host.engines[Tier.FULL]
    kind = WorkKind.VERIFY if block else WorkKind.DECODE
    shadow = min(shadow, len(block))
    ids = [*PROMPT, *block]
    bare = item(kind, ids, num=len(block) or 3)
    reply = host.one(replace(bare, num_audit=audit, num_shadow=shadow))
    ends = range(len(PROMPT) - audit, len(PROMPT) + shadow)
    assert [look.agrees for look in reply.audited] == [
        full.choose(ids[:at], SEED) == ids[at] for at in ends
    ]
    alone = Host().one(bare)
    assert (reply.tokens, reply.full_rows) == (alone.tokens, alone.full_rows + audit)


@given(block=st.lists(st.integers(0, 49), min_size=1, max_size=8))
def test_a_cascade_is_told_the_ratio_of_each_id_of_the_block(block):
    host = Host()
    full = host.engines[Tier.FULL]
    ids = [*PROMPT, *block]
    plan = Plan(PlanKind.CASCADE, gamma=8, alpha=0.5)
    reply = host.one(item(WorkKind.VERIFY, ids, num=len(block), plan=plan))
    places = range(len(PROMPT), len(ids))
    assert reply.ratios == tuple(full.judge(ids[:at], SEED, ids[at]).ratio for at in places)
    assert reply.tokens == host.one(item(WorkKind.VERIFY, ids, num=len(block))).tokens


@given(block=st.lists(st.integers(0, 49), min_size=1, max_size=8))
def test_verifying_chooses_after_every_place_of_the_block(block):
    host = Host()
    reply = host.one(item(WorkKind.VERIFY, (*PROMPT, *block), num=len(block)))
    ids = [*PROMPT, *block]
    full = host.engines[Tier.FULL]
    expected = [full.choose(ids[:end], SEED) for end in range(len(PROMPT), len(ids) + 1)]
    assert reply.tokens == tuple(expected)
    assert (reply.full_passes, reply.full_rows) == (1, len(block) + 1)


def work_of(kind: WorkKind, **fields) -> WorkItem:
    match kind:
        case WorkKind.PROPOSE:
            return item(kind, PROMPT, num=5, plan=plan_of(PlanKind.THREE_TIER, 3, 5), **fields)
        case WorkKind.VERIFY:
            return item(kind, PROMPT, num=3, **fields)
        case WorkKind.DECODE:
            return item(kind, PROMPT, num=3, **fields)
        case WorkKind.EXTEND:
            return item(kind, PROMPT, **fields)
        case WorkKind.AUDIT:
            return replace(item(kind, PROMPT, **fields), num_audit=2)
        case WorkKind.ROUNDS:
            plan = plan_of(PlanKind.THREE_TIER, 3, 5)
            return replace(item(kind, PROMPT, num=9, plan=plan, **fields), num_rounds=2)


@pytest.mark.parametrize("kind", WorkKind)
def test_the_same_item_gives_the_same_reply(host, kind):
    first = host.one(work_of(kind))
    assert first.status is ReplyStatus.OK
    assert host.one(work_of(kind)) == first
    for other in WorkKind:
        host.one(work_of(other))
    assert host.one(work_of(kind)) == first


@pytest.mark.parametrize("kind", WorkKind)
def test_work_on_a_prefix_that_is_not_here_needs_it(host, kind):
    fields = {"tokens": (1, 2), "num": 1, "plan": plan_of(PlanKind.THREE_TIER, 2, 2)}
    unknown = host.one(item(kind, start=6, prefix=PROMPT, **fields))
    assert (unknown.status, unknown.held) == (ReplyStatus.NEED_PREFIX, 0)
    host.one(item(WorkKind.EXTEND, PROMPT[:4]))
    too_short = host.one(item(kind, start=6, prefix=PROMPT, **fields))
    assert (too_short.status, too_short.held) == (ReplyStatus.NEED_PREFIX, 4)
    host.one(item(WorkKind.EXTEND, PROMPT))
    other = host.one(item(kind, start=6, prefix=(*PROMPT[:5], 99), **fields))
    assert (other.status, other.held) == (ReplyStatus.NEED_PREFIX, 6)
    assert host.one(item(kind, start=6, prefix=PROMPT, **fields)).status is ReplyStatus.OK


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(WorkKind),
            st.integers(0, 12),
            st.lists(st.integers(0, 2), min_size=1, max_size=5),
        ),
        max_size=8,
    )
)
def test_whatever_was_held_before_the_reply_is_that_of_a_fresh_worker(steps):
    """Tokens told again, cut short or replaced: the context holds exactly what was told."""
    host = Host()
    known = list(PROMPT)
    host.one(item(WorkKind.EXTEND, PROMPT))
    for kind, start, tokens in steps:
        # A block needs a prefix of one token at the least.
        start = max(min(start, len(known)), 1 if kind is WorkKind.VERIFY else 0)
        known = [*known[:start], *tokens]
        fields = {"num": min(2, len(tokens)), "plan": plan_of(PlanKind.THREE_TIER, 2, 2)}
        told = item(kind, tokens, start=start, prefix=known[:start], **fields)
        whole = item(kind, known, **fields)
        assert host.one(told).tokens == Host().one(whole).tokens


def test_another_seed_under_the_same_name_starts_afresh(host):
    host.one(item(WorkKind.DECODE, PROMPT, num=3))
    spec = SamplingSpec(SamplingParams(), SEED + 1, choice=0, prompt_len=1)
    told = WorkItem("s0", 2, WorkKind.DECODE, 0, PROMPT, 0, OFF, 1, SessionOpen(spec, frozenset()))
    assert host.one(told).tokens == (host.engines[Tier.FULL].choose(PROMPT, SEED + 1),)


def test_release_leaves_nothing_in_any_engine(host):
    host.do(*(work_of(kind, name=f"s{i}") for i, kind in enumerate(WorkKind)))
    assert host.tiers.num_sessions == len(WorkKind)
    assert any(engine.cached for engine in host.engines.values())
    assert host.do(release=("s0", "s1", "s2", "s3", "s4", "s5", "unknown")) == ()
    assert host.tiers.num_sessions == 0
    assert not any(engine.cached for engine in host.engines.values())


@pytest.mark.parametrize("kind", [WorkKind.DECODE, WorkKind.VERIFY, WorkKind.ROUNDS])
def test_logprobs_come_one_a_token_where_they_are_asked_for(host, kind):
    asked = replace(work_of(kind), num_logprobs=2)
    reply = host.one(asked)
    assert len(reply.logprobs) == len(reply.tokens)
    assert [told.top[0][0] for told in reply.logprobs] == list(reply.tokens)
    assert replace(reply, logprobs=()) == host.one(work_of(kind))


def test_an_idle_session_is_dropped_by_age(host):
    host.do(work_of(WorkKind.DECODE), work_of(WorkKind.PROPOSE, name="s1"))
    host.clock.now = 50.0
    host.one(item(WorkKind.EXTEND, PROMPT, name="s1"))
    host.clock.now = 60.0
    host.do()
    assert host.tiers.num_sessions == 2
    host.clock.now = 61.0
    asked = item(WorkKind.DECODE, (1,), start=6, prefix=PROMPT, num=1)
    assert host.one(asked).status is ReplyStatus.NEED_PREFIX
    assert host.tiers.num_sessions == 1
    assert all(set(engine.cached) <= {"s1"} for engine in host.engines.values())


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (2, 0, 4, 5, 3, 1)])
def test_a_mixed_step_answers_each_item_as_if_alone(host, order):
    items = [work_of(kind, name=f"s{i}", ticket=i) for i, kind in enumerate(WorkKind)]
    missing = item(WorkKind.DECODE, (1,), name="s8", start=6, prefix=PROMPT, num=1)
    alone = [Host().one(i) for i in items]
    replies = host.do(missing, *(items[i] for i in order))
    assert replies[0].status is ReplyStatus.NEED_PREFIX
    assert list(replies[1:]) == [alone[i] for i in order]


def test_sessions_side_by_side_share_the_pass(host):
    kinds = (WorkKind.DECODE, WorkKind.VERIFY, WorkKind.EXTEND) * 2
    host.do(
        *(
            item(kind, PROMPT, name=f"s{i}", num=kind != WorkKind.EXTEND)
            for i, kind in enumerate(kinds)
        )
    )
    assert host.engines[Tier.FULL].forwards == 1


@pytest.mark.parametrize(
    ("kind", "prepared"),
    [
        (PlanKind.TWO_TIER, {Tier.DRAFT}),
        (PlanKind.THREE_TIER, {Tier.DRAFT, Tier.SLIM}),
    ],
)
def test_a_chunk_of_the_prompt_is_computed_where_it_will_be_asked(kind, prepared):
    host = Host(tiers=(Tier.DRAFT, Tier.SLIM))
    host.one(item(WorkKind.EXTEND, PROMPT, plan=plan_of(kind, 2, 2)))
    assert {t for t, e in host.engines.items() if e.stats().cached_tokens} == prepared
    large = Host(tiers=(Tier.FULL,))
    large.one(item(WorkKind.EXTEND, PROMPT, plan=plan_of(kind, 2, 2)))
    assert large.engines[Tier.FULL].stats().cached_tokens == len(PROMPT)


def test_what_was_verified_is_not_computed_again(host):
    block = host.decoded(Tier.FULL, PROMPT, 4)
    reply = host.one(item(WorkKind.VERIFY, (*PROMPT, *block), num=4))
    rows = host.engines[Tier.FULL].rows
    tokens = (*PROMPT, *reply.tokens)
    told = item(WorkKind.DECODE, tokens[-1:], start=len(tokens) - 1, prefix=tokens[:-1], num=1)
    host.one(told)
    assert host.engines[Tier.FULL].rows == rows + 1


def test_stats_are_per_tier(host):
    host.one(work_of(WorkKind.DECODE))
    stats = host.tiers.stats()
    assert set(stats) == set(Tier)
    assert stats[Tier.FULL].sessions == 1
    assert stats[Tier.SLIM].forwards == 0
