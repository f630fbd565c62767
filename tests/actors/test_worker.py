"""Laws of what a worker says of its own load."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from actors import worker as worker_module
from actors.engine.build import EngineSpec, TierSource
from actors.engine.ranks.group import GroupSpec
from actors.lanes import Lane
from actors.messages import StepRequest, WorkerReport
from actors.tiers import TierHost
from actors.worker import Follower, Worker, WorkerSpec
from infra.probe.sample import NOT_SAMPLED, ProbeSample
from infra.probe.sampler import ProbeSettings, Sampler
from policies.vocabulary import Tier
from policies.work import WorkReply


class Samples:
    """Waits for samples that a worker's own thread takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._taken = threading.Condition()
        self._count = 0
        self.threads: set[str] = set()
        take = Sampler.sample

        def sample(sampler: Sampler) -> ProbeSample:
            seen = take(sampler)
            with self._taken:
                self._count += 1
                self.threads.add(threading.current_thread().name)
                self._taken.notify_all()
            return seen

        monkeypatch.setattr(Sampler, "sample", sample)

    def next(self, count: int = 1) -> None:
        """Until so many more were taken."""
        with self._taken:
            until = self._count + count
            assert self._taken.wait_for(lambda: self._count >= until, timeout=60)


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> Samples:
    return Samples(monkeypatch)


def spec(device: str = "cpu") -> WorkerSpec:
    """A worker of prompt lookup, which loads nothing."""
    engine = EngineSpec({Tier.DRAFT: TierSource()}, "float32", device, 1, 128, 4)
    settings = ProbeSettings(interval_s=0.005)
    return WorkerSpec("cheap-0", "cheap", engine, torch.get_num_threads(), 0, None, settings)


@pytest.fixture
def worker(samples: Samples) -> Iterator[Worker]:
    """Ends with: no thread of the sampler is left."""
    here = Worker(spec())
    yield here
    here.close()
    assert all(thread.name != "probe" for thread in threading.enumerate())


def status(report: WorkerReport) -> dict:
    """What a status page shows of the worker, through JSON as there."""
    lane = Lane(report.worker_id, None, report, max_in_flight=1, decode_tokens=1)
    return json.loads(json.dumps(lane.describe()))


def test_cpu_worker_reports_its_step_loop_as_utilisation_and_says_so(
    worker: Worker, samples: Samples
):
    samples.next(2)
    probe = worker.report().probe
    assert (probe.source, probe.cards) == ("host", ())
    assert probe.note == "no NVML: the process computes on no GPU"
    assert (probe.util_frac, probe.util_of) == (0.0, "step loop")
    assert probe.host.process_cpus is not None
    assert probe.host.process_cpus >= 0.0


def test_step_that_runs_is_time_at_work_before_it_ends(
    worker: Worker, samples: Samples, monkeypatch: pytest.MonkeyPatch
):
    running, go = threading.Event(), threading.Event()

    def held(host: TierHost, request: StepRequest) -> tuple[WorkReply, ...]:
        running.set()
        assert go.wait(60)
        return ()

    monkeypatch.setattr(TierHost, "step", held)
    stepping = threading.Thread(target=worker.step, args=(StepRequest(()),))
    stepping.start()
    try:
        assert running.wait(60)
        samples.next(2)
        at_work = worker.report().probe
    finally:
        go.set()
        stepping.join()
    assert at_work.util_frac is not None
    assert at_work.util_frac > 0.0
    samples.next(3)
    assert worker.report().probe.util_frac == 0.0


def test_steps_and_reports_take_no_sample_themselves(worker: Worker, samples: Samples):
    for _ in range(100):
        worker.step(StepRequest(()))
        worker.report()
    samples.next()
    assert samples.threads == {"probe"}


def test_report_with_its_sample_travels_and_is_shown_per_worker(worker: Worker, samples: Samples):
    samples.next(2)
    report = worker.report()
    assert pickle.loads(pickle.dumps(report)) == report
    shown = status(report)
    assert (shown["device"], shown["probe"]["util_of"]) == ("cpu", "step loop")
    assert shown["probe"]["util_frac"] == report.probe.util_frac
    assert shown["probe"]["note"] == report.probe.note


@pytest.mark.parametrize(
    ("device", "ordinals"), [("cpu", None), ("cuda", (0,)), ("cuda:0", (0,)), ("cuda:2", (2,))]
)
def test_worker_looks_at_its_own_device_alone(
    monkeypatch: pytest.MonkeyPatch, device: str, ordinals: tuple[int, ...] | None
):
    asked: list[tuple[str | None, tuple[int, ...]]] = []

    class Refusing:
        def __init__(self, visible: str | None, ordinals: tuple[int, ...]) -> None:
            asked.append((visible, ordinals))
            raise OSError("no driver here")

    monkeypatch.setattr(worker_module, "Cards", Refusing)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5")
    sampler = worker_module._sampler(spec(device), worker_module.BusyTime())
    assert sampler.last == NOT_SAMPLED
    assert sampler.sample().source == "host"
    assert asked == ([] if ordinals is None else [("3,4,5", ordinals)])


def test_worker_that_shares_a_card_is_bound_before_it_loads(monkeypatch: pytest.MonkeyPatch):
    bounds: list[tuple[float, int]] = []
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda fraction, device: bounds.append((fraction, device)),
    )

    def build(engine: EngineSpec) -> dict:
        assert bounds == [(0.4, 1)]
        raise InterruptedError("built")

    monkeypatch.setattr(worker_module, "build_engines", build)
    monkeypatch.setattr(Sampler, "start", lambda sampler: None)
    with pytest.raises(InterruptedError):
        Worker(replace(spec("cuda:1"), memory_frac=0.4))
    Follower(replace(spec("cuda"), ranks=GroupSpec(2, "", 0, "")), 1)
    assert bounds == [(0.4, 1)]
