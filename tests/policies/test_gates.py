"""Laws of the gate of mode `via`: three regions, a closed gate, and levels that only tighten."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.gates import Gate, GateKind, Region, region, tightened

UNIT = st.floats(0, 1)
LEVELS = 4


@st.composite
def gates(draw) -> Gate:
    low, high = sorted(draw(st.lists(UNIT, min_size=2, max_size=2, unique=True)))
    return Gate(draw(st.sampled_from(GateKind)), high, low, draw(UNIT))


@pytest.mark.parametrize(
    ("thetas", "fault"),
    [
        ({"theta_accept": 0.5, "theta_escalate": 0.5}, "theta_accept=0.5, theta_escalate=0.5"),
        ({"theta_accept": 0.3, "theta_escalate": 0.5}, "theta_accept=0.3"),
        ({"theta_accept": 1.1}, "theta_accept=1.1"),
        ({"theta_escalate": -0.1}, "theta_escalate=-0.1"),
        ({"theta_accept": float("nan")}, "theta_accept=nan"),
        ({"margin": 1.5}, "0 <= margin <= 1, not margin=1.5"),
        ({"margin": float("nan")}, "margin=nan"),
    ],
)
def test_an_illegal_gate_says_its_rule_and_values(thetas, fault):
    with pytest.raises(ValueError, match=r"a gate needs .* <= 1|a gate needs 1 >=") as error:
        Gate(GateKind.RATIO, **thetas)
    assert fault in str(error.value)


@pytest.mark.parametrize(
    ("kind", "ratio", "margin", "expected"),
    [
        (GateKind.RATIO, 0.7, 0.0, Region.ACCEPT),
        (GateKind.RATIO, 0.69, 1.0, Region.REPLACE),
        (GateKind.RATIO, 0.5, 1.0, Region.REPLACE),
        (GateKind.RATIO, 0.49, 1.0, Region.ESCALATE),
        (GateKind.MARGIN, 0.7, 0.3, Region.ACCEPT),
        (GateKind.MARGIN, 0.69, 0.3, Region.REPLACE),
        (GateKind.MARGIN, 0.0, 0.3, Region.REPLACE),
        (GateKind.MARGIN, 1.0, 0.29, Region.ESCALATE),
    ],
)
def test_the_regions_by_example(kind, ratio, margin, expected):
    assert region(Gate(kind), ratio, margin) is expected


@given(kind=st.sampled_from(GateKind), ratio=UNIT, margin=UNIT, mu=UNIT)
def test_nothing_passes_a_closed_gate(kind, ratio, margin, mu):
    closed = Gate(kind, theta_accept=1.0, margin=mu)
    assert closed.closed
    assert region(closed, ratio, margin) is Region.ESCALATE


@given(gate=gates(), ratio=UNIT, margin=UNIT)
def test_a_stricter_level_keeps_less_and_escalates_more(gate, ratio, margin):
    regions = [region(tightened(gate, n, LEVELS), ratio, margin) for n in range(LEVELS + 1)]
    for looser, stricter in itertools.pairwise(regions):
        if stricter is Region.ACCEPT:
            assert looser is Region.ACCEPT
        if looser is Region.ESCALATE:
            assert stricter is Region.ESCALATE


@given(gate=gates(), levels=st.integers(1, 9))
def test_level_0_is_the_gate_and_the_last_is_closed(gate, levels):
    assert tightened(gate, 0, levels) == gate
    assert tightened(gate, levels, levels).closed


@pytest.mark.parametrize("kind", GateKind)
def test_every_level_between_is_open_and_stricter(kind):
    steps = [tightened(Gate(kind), level, LEVELS) for level in range(LEVELS + 1)]
    for looser, stricter in itertools.pairwise(steps):
        assert not looser.closed
        assert stricter.theta_accept > looser.theta_accept
        assert stricter.theta_escalate > looser.theta_escalate
        assert stricter.margin > looser.margin


@pytest.mark.parametrize(("level", "levels"), [(-1, 4), (5, 4), (0, 0)])
def test_a_level_that_does_not_exist_is_a_bug(level, levels):
    with pytest.raises(AssertionError):
        tightened(Gate(GateKind.RATIO), level, levels)
