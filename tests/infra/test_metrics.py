"""Laws of the exporter: totals become increments, once each, by label."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from actors.auditor import Auditor
from actors.messages import Membership
from actors.planner import Planner
from actors.router import Router, RouterSettings
from cluster.telemetry import export
from infra.metrics import Exporter
from policies.lossy import LossySettings
from policies.plan_settings import ControllerSettings
from policies.vocabulary import Plan, PlanKind
from tests.actors.fakes import CHEAP, FakeWorker


class Recorded:
    """Values by metric name and labels; refuses labels that were not declared."""

    def __init__(self) -> None:
        self.values: dict[tuple[Any, ...], float] = defaultdict(float)

    def make(self, name: str, description: str, tag_keys: tuple[str, ...]) -> Any:
        assert description.endswith(".")
        values = self.values

        class Metric:
            def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
                assert value > 0
                assert set(tags or {}) == set(tag_keys)
                values[name, *sorted((tags or {}).items())] += value

            def set(self, value: float, tags: dict[str, str] | None = None) -> None:
                assert set(tags or {}) == set(tag_keys)
                values[name, *sorted((tags or {}).items())] = value

        return Metric()


def test_a_total_told_again_counts_once_and_one_that_fell_began_anew():
    seen = Recorded()
    exporter = Exporter(seen.make, seen.make)
    for value in (3, 3, 5, 2, 2):
        exporter.total("x_total", "What.", value, kind="a")
    exporter.total("x_total", "What.", 1, kind="b")
    assert seen.values["viaserve_x_total", ("kind", "a")] == 5 + 2
    assert seen.values["viaserve_x_total", ("kind", "b")] == 1


def test_a_level_is_as_it_was_told_last():
    seen = Recorded()
    exporter = Exporter(seen.make, seen.make)
    for value in (3.0, 0.5):
        exporter.level("y", "What.", value)
    assert seen.values[("viaserve_y",)] == 0.5


async def test_a_routers_status_goes_out_whole():
    async def report(rows: Any) -> Any:
        raise AssertionError(rows)

    auditor = Auditor(LossySettings(), Plan(PlanKind.OFF), report)
    planner = Planner(ControllerSettings(), random.Random(0))
    router = Router(RouterSettings(), lambda handle, request: report(request), auditor, planner)
    cheap = FakeWorker("c1", CHEAP)
    router.set_members(Membership(1, (cheap.entry,)))
    router.look()
    seen = Recorded()
    export(Exporter(seen.make, seen.make), router.status(), "m")
    names = {key[0] for key in seen.values}
    assert {"viaserve_audit_level", "viaserve_audit_disagreement_bound"} <= names
    of = ("model_name", "m")
    assert seen.values["viaserve_num_requests_running", of] == 0
    assert seen.values["viaserve_pool_price", of, ("pool", "fake")] == 1.0
    assert seen.values["viaserve_pool_workers", of, ("pool", "fake")] == 1
    assert ("viaserve_pool_util_frac", of, ("pool", "fake")) not in seen.values  # nobody knows it
    assert seen.values["viaserve_plan_in_force", of, ("plan", "off")] == 1
    assert seen.values["viaserve_plan_in_force", of, ("plan", "two_tier")] == 0
