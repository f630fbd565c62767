"""Laws of a simulated worker's times that come from a calibration."""

from __future__ import annotations

import pytest

from cluster.simulate.times import MeasuredTimes
from policies.vocabulary import Tier
from tests.cluster.test_advise import FULL_S, calibrated


def test_rows_beyond_the_measured_ones_cost_what_a_prompts_rows_do():
    times = MeasuredTimes(calibrated(prefill_token_s={Tier.FULL: 0.002}))
    assert times.forward_s(Tier.FULL, 1, 16, 0) == pytest.approx(FULL_S * 1.16)
    # No less than fewer rows.
    assert times.forward_s(Tier.FULL, 1, 17, 0) == pytest.approx(FULL_S * 1.16), (
        "no less than fewer rows"
    )
    assert times.forward_s(Tier.FULL, 1, 40, 0) == pytest.approx(40 * 0.002)
    assert times.forward_s(Tier.FULL, 1, 400, 0) == pytest.approx(400 * 0.002)


def test_several_sessions_share_more_measured_rows():
    times = MeasuredTimes(calibrated(prefill_token_s={Tier.FULL: 0.002}))
    assert times.forward_s(Tier.FULL, 4, 64, 0) == pytest.approx(FULL_S * 1.64)
    assert times.forward_s(Tier.FULL, 4, 65, 0) == pytest.approx(65 * 0.002)
