"""A real Prometheus that has scraped nothing: no chart says "no data" for want of an event."""

from __future__ import annotations

import shutil
import time

import pytest

from infra.dashboards.boards import BOARDS
from infra.dashboards.charts import PREFIXES
from infra.dashboards.prometheus import Prometheus
from tests.observability.load import prometheus

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus: apt-get install prometheus"
)


def test_before_the_first_event_every_query_is_zero(tmp_path):
    with prometheus("scrape_configs: []\n", tmp_path) as url:
        now_s = time.time()
        for chart in (chart for board in BOARDS for chart in board.charts):
            series = Prometheus(url, PREFIXES[0]).series(chart, now_s - 60, now_s, 10)
            assert {s.query for s in series} == set(range(len(chart.queries))), chart.title
            assert {y for s in series for _, y in s.points} == {0.0}, chart.title
