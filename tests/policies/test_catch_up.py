"""Laws of catching up: what cannot win its time back is left out, probes live on a credit."""

from __future__ import annotations

from policies.catch_up import CatchUp
from policies.estimates import TierTiming
from policies.plan import Choice, Reason
from policies.vocabulary import Plan, PlanKind, Tier

COSTS = {PlanKind.OFF: 0.10, PlanKind.THREE_TIER: 0.06}


def choice(*, probe: bool) -> Choice:
    reason = Reason.PROBE if probe else Reason.CHEAPEST
    return Choice(Plan(PlanKind.THREE_TIER), reason, probe, COSTS)


def seen(budget: float = 0.02, full_s: float = 0.0) -> CatchUp:
    """A row of prefill takes 10 ms."""
    catch_up = CatchUp(budget)
    catch_up.saw(TierTiming(Tier.SLIM, 1.0, 1, 100))
    catch_up.saw(TierTiming(Tier.FULL, full_s, 1, 1))
    return catch_up


def test_a_warm_session_is_always_allowed():
    assert CatchUp(0.02).allows(choice(probe=True), {Tier.SLIM: 0}, 1)


def test_a_plan_must_win_its_stall_back_over_half_of_what_remains():
    catch_up = seen()
    # 100 rows stall for 1 s; a token gains 0.04 s.
    assert catch_up.allows(choice(probe=False), {Tier.SLIM: 100}, 50)
    assert not catch_up.allows(choice(probe=False), {Tier.SLIM: 100}, 49)


def test_probes_are_paid_out_of_a_share_of_fulls_time():
    catch_up = seen(budget=0.02, full_s=100.0)
    assert catch_up.allows(choice(probe=True), {Tier.SLIM: 150}, 10)
    assert not catch_up.allows(choice(probe=True), {Tier.SLIM: 150}, 10), "the credit is spent"
    assert catch_up.allows(choice(probe=True), {Tier.SLIM: 50}, 10)
    catch_up.saw(TierTiming(Tier.FULL, 75.0, 9, 9))
    assert catch_up.allows(choice(probe=True), {Tier.SLIM: 150}, 10)


def test_before_prefill_has_been_timed_only_short_prefixes_are_tried():
    catch_up = CatchUp(0.02)
    catch_up.saw(TierTiming(Tier.FULL, 1.0, 10, 100))
    assert catch_up.allows(choice(probe=True), {Tier.SLIM: 32}, 10)
    assert not catch_up.allows(choice(probe=True), {Tier.SLIM: 33}, 10)


def test_each_tier_has_its_own_time_a_row():
    """A draft's prefix costs less than slim's; one that nobody has timed counts as the slowest."""
    catch_up = seen()
    assert not catch_up.allows(choice(probe=False), {Tier.DRAFT: 101}, 50)
    catch_up.saw(TierTiming(Tier.DRAFT, 0.1, 1, 100))
    assert catch_up.allows(choice(probe=False), {Tier.DRAFT: 1000}, 50)
    assert not catch_up.allows(choice(probe=False), {Tier.DRAFT: 1000, Tier.SLIM: 1}, 50)


def test_the_first_look_of_a_new_tier_is_paid_once_it_is_known_what_it_took():
    catch_up = CatchUp(0.02)
    catch_up.saw(TierTiming(Tier.FULL, 1.0, 1, 100))
    probe = choice(probe=True)
    assert not catch_up.allows(probe, {Tier.SLIM: 300}, 10), "it may take 3 s, more than the most"
    assert catch_up.allows(probe, {Tier.SLIM: 150}, 10)
    assert not catch_up.allows(probe, {Tier.SLIM: 150}, 10), "the first look is not back"
    catch_up.saw(TierTiming(Tier.SLIM, 0.15, 1, 150))
    assert not catch_up.allows(probe, {Tier.SLIM: 450}, 10), "0.15 s are owed"
    catch_up.saw(TierTiming(Tier.FULL, 32.0, 32, 32))
    assert catch_up.allows(probe, {Tier.SLIM: 450}, 10)


def test_a_probe_that_promises_to_win_its_time_back_needs_no_credit():
    catch_up = seen()
    assert catch_up.allows(choice(probe=True), {Tier.SLIM: 100}, 50)
    assert catch_up.allows(choice(probe=True), {Tier.SLIM: 100}, 50), "as often as it is drawn"
    assert not catch_up.allows(choice(probe=True), {Tier.SLIM: 100}, 49)


def test_a_row_of_a_prompt_is_no_dearer_than_one_of_decoding():
    catch_up = seen(full_s=100.0)
    catch_up.saw(TierTiming(Tier.DRAFT, 0.1, 5, 50))
    # 1,000 rows would be 10 s at slim's time a row; 2 s at the draft's own.
    assert catch_up.allows(choice(probe=True), {Tier.DRAFT: 1000}, 10)


def test_a_price_from_a_busy_hour_does_not_keep_a_tier_away_for_ever():
    catch_up = CatchUp(0.02)
    catch_up.saw(TierTiming(Tier.DRAFT, 0.1, 1, 100))
    for _ in range(20):
        catch_up.saw(TierTiming(Tier.DRAFT, 10.0, 1, 100))
    catch_up.saw(TierTiming(Tier.FULL, 10.0, 10, 10))
    asked = [catch_up.allows(choice(probe=True), {Tier.DRAFT: 100}, 10) for _ in range(10)]
    assert not asked[0]
    assert asked[-1], "the credit of 0.2 s is enough for what it once took"
