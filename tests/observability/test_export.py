"""Laws of what goes out: each figure under its name, and sums over processes are right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.auditor import samples
from actors.engine.seam import EngineStats
from actors.ingress.tally import RequestTally, RequestWatch
from cluster.metrics.catalogue import CATALOGUE
from cluster.metrics.requests import export_requests, export_values
from cluster.metrics.router import export_router, export_tally
from cluster.metrics.worker import WorkerMeter
from infra.metrics import Exporter
from infra.probe.sample import CardSample, HostSample, ProbeSample
from policies.gates import Gate, GateKind
from policies.vocabulary import Plan, PlanKind, Tier
from tests.actors.fakes import CHEAP, LARGE, THREE_TIER, World, answer, spec, until
from tests.infra.test_metrics import Recorded

OF = ("model_name", "m")
VIA = Plan(PlanKind.VIA, gamma=3, block=6, gate=Gate(GateKind.RATIO, 0.6, 0.3))
CARD = CardSample("GPU-1", memory_used_bytes=3, memory_total_bytes=9, power_w=70, temperature_c=50)
PROBE = ProbeSample("nvml", "", HostSample(step_busy_frac=0.5), (replace(CARD, util_frac=0.25),))


def exporter(seen: Recorded) -> Exporter:
    return seen.exporter(model_name="m")


async def export_all(seen: Recorded, world: World) -> None:
    """What two routers, an ingress and a pool replica tell after a few answers."""
    cheap, large = world.worker("cheap", CHEAP), world.worker("large", LARGE)
    cheap.forward_s, large.forward_s = dict.fromkeys(CHEAP, 0.01), dict.fromkeys(LARGE, 0.02)
    for number in range(2):
        router = world.router()
        world.announce(cheap, large, router=router)
        for plan in (THREE_TIER, VIA):
            await answer(router, spec(f"{number}{plan.kind}", plan, seed=number, max_tokens=40))
        auto = replace(spec(f"{number}a", THREE_TIER, seed=number), auto=True)
        await answer(router, auto)
        await until(lambda router=router: router.idle)
        router.look()
        tally, out = router.tally(), exporter(seen)
        export_router(out, router.status(), samples(router._auditor.reported))
        export_tally(out, tally)
        await export_values(out, CATALOGUE["request_queue_time_seconds"], tally.take_waits_s())


async def test_every_metric_of_the_table_is_told(world: World):
    seen = Recorded()
    await export_all(seen, world)
    requests = RequestTally()
    watch = RequestWatch(requests, "auto", requests.clock(), 1, 7)
    for finish in (None, "stop"):
        watch.saw(0, 2, finish)
    watch.failed(500)
    await export_requests(exporter(seen), requests.take())
    report = replace(
        world.workers[0].entry.report,
        engines={Tier.SLIM: EngineStats(1, 4, 0, 0, 0, 0, 0, 0)},
        probe=PROBE,
        price_per_hour=2.0,
        lived_s=1800.0,
    )
    WorkerMeter(exporter(seen), "fake").saw(report)
    told = {key[0].removeprefix("viaserve_") for key in [*seen.values, *seen.observed]}
    # These are told as soon as there is one.
    rare = {"late_steps_total", "moved_sessions_total", "skipped_proposals_total"}
    rare |= {"lenient_tokens_total", "pool_util_frac"}
    assert set(CATALOGUE) - told <= rare
    assert told <= set(CATALOGUE)
    assert seen.values["viaserve_cost_usd_total", OF, ("pool", "fake")] == pytest.approx(1.0)


async def test_counts_of_several_routers_add_up_to_the_tokens_of_the_clients(
    world: World,
):
    seen = Recorded()
    await export_all(seen, world)
    tokens = sum(
        v for key, v in seen.values.items() if key[0] == "viaserve_generation_tokens_total"
    )
    assert tokens == 2 * (40 + 40 + 24)
    rows = seen.values["viaserve_audit_rows_total", OF, ("sample", "sampled")]
    assert rows == world.audit_state.sampled.rows


async def test_accepted_tokens_are_the_sum_of_those_by_place(world: World):
    seen = Recorded()
    await export_all(seen, world)

    def total(name: str, **labels: str) -> float:
        of = set(labels.items())
        return sum(
            value
            for (told, *pairs), value in seen.values.items()
            if told == f"viaserve_{name}" and of <= set(pairs)
        )

    by_place = total("spec_decode_num_accepted_tokens_per_pos_total")
    assert by_place == total("spec_decode_num_accepted_tokens_total") > 0
    assert by_place == total("verdicts_total", tier="full", verdict="accept")
    blocks = total("spec_decode_num_drafts_total")
    assert total("verdicts_total", tier="full", verdict="regenerate") <= blocks


def report_of(worker: Any, **fields: Any) -> Any:
    return replace(worker.entry.report, **fields)


def test_a_workers_life_is_counted_once_and_goes_on_with_its_successor():
    from tests.actors.fakes import FakeWorker

    seen = Recorded()
    meter = WorkerMeter(exporter(seen), "p")
    first, second = FakeWorker("a", CHEAP), FakeWorker("b", CHEAP)
    for worker, lived_s in ((first, 10.0), (first, 10.0), (first, 25.0), (second, 5.0)):
        meter.saw(report_of(worker, lived_s=lived_s))
    assert seen.values["viaserve_worker_seconds_total", OF, ("pool", "p")] == 30.0
    assert not any(key[0] == "viaserve_cost_usd_total" for key in seen.values)
