"""A pool replica's figures, out to metrics: each worker's are told by the one that keeps it."""

from __future__ import annotations

from actors.messages import WorkerReport
from cluster.metrics import catalogue
from infra.metrics import Exporter
from infra.probe.sample import CardSample


class WorkerMeter:
    """How long the workers of one pool replica have lived, and what that has cost."""

    def __init__(self, exporter: Exporter, pool: str) -> None:
        self._exporter = exporter
        self._pool = pool
        self._worker_id = ""
        self._lived_s = 0.0

    def saw(self, report: WorkerReport) -> None:
        """A worker's report; told again it costs nothing more."""
        if report.worker_id != self._worker_id:
            self._worker_id, self._lived_s = report.worker_id, 0.0
        more_s = max(report.lived_s - self._lived_s, 0.0)
        self._lived_s = max(report.lived_s, self._lived_s)
        self._exporter.more(catalogue.WORKER_SECONDS, more_s, pool=self._pool)
        if report.price_per_hour:
            usd = more_s / 3600 * report.price_per_hour
            self._exporter.more(catalogue.COST, usd, pool=self._pool)
        export_worker(self._exporter, report)


def export_worker(exporter: Exporter, report: WorkerReport) -> None:
    """Tell the levels of a worker."""
    of = {"pool": report.pool, "worker": report.worker_id}
    exporter.level(catalogue.WORKER_SESSIONS, report.sessions, **of)
    for tier, stats in report.engines.items():
        if stats.slots:
            used = stats.sessions / stats.slots
            exporter.level(catalogue.KV_USAGE, used, tier=str(tier), **of)
    probe = report.probe
    if probe.util_frac is not None and probe.util_of is not None:
        exporter.level(catalogue.DEVICE_UTIL, probe.util_frac, of=probe.util_of, **of)
    for card in probe.cards:
        _export_card(exporter, card, of | {"gpu": card.uuid})


def _export_card(exporter: Exporter, card: CardSample, of: dict[str, str]) -> None:
    told = {
        catalogue.GPU_MEMORY_USED: card.memory_used_bytes,
        catalogue.GPU_MEMORY: card.memory_total_bytes,
        catalogue.GPU_POWER: card.power_w,
        catalogue.GPU_HEAT: card.temperature_c,
    }
    for metric, value in told.items():
        if value is not None:
            exporter.level(metric, float(value), **of)
