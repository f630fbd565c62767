"""A real Prometheus against a live server: every chart's queries are answered."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from infra.dashboards import preview
from infra.dashboards.boards import BOARDS
from infra.dashboards.charts import PREFIXES, Chart
from infra.dashboards.prometheus import Prometheus, Series
from tests.observability.load import MODES, load, prometheus
from tests.serving.server import Server, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="no prometheus: apt-get install prometheus"
    ),
]
ROOT = Path(__file__).resolve().parents[2]
LOAD_S = float(os.environ.get("VIASERVE_TEST_LOAD_S", "60"))
SETTINGS = ["model.dtype=float32", "pools.local.price_per_hour=0.5", "lossy.audit.sample_prob=1"]
QUICK = {"RAY_metrics_report_interval_ms": "2000", "REPORTER_UPDATE_INTERVAL_MS": "2000"}
"""Of Ray: how often processes report to their node's agent, and the agent looks at the node."""
SCRAPES = 60
ZERO = {
    "Errors",
    "Sessions waiting",
    "Slow or late workers",
    "Moves, skips, late steps",
    "GPU memory",
    "GPU power",
    "Level of the gate",
    "Queue",
    "Let pass",
    "Rows for looks",
    "Disagreement",
}
"""Charts that may show nothing but zeros on a machine without GPUs where nothing goes wrong."""


@dataclass(frozen=True)
class Loaded:
    server: Server
    prometheus: str
    requests: int
    begin_s: float
    end_s: float
    agent: str


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> Iterator[Loaded]:
    """A server after a minute of load, scraped the while: at its endpoint and at Ray's agent."""
    folder = tmp_path_factory.mktemp("prometheus")
    with serving(SETTINGS, env=QUICK) as server:
        agent = _agent_of(server)
        with prometheus(_config(server.url, agent), folder) as url:
            begin_s = time.time()
            requests = load(server.url, LOAD_S)
            time.sleep(15.0)  # Two of our own intervals, Ray's agent's, and two scrapes.
            yield Loaded(server, url, requests, begin_s, time.time(), agent)


def _agent_of(server: Server) -> str:
    """Where Ray's agent of the server's own Ray serves metrics: its session's file says."""
    import psutil

    for process in psutil.Process(server.process.pid).children(recursive=True):
        for word in process.cmdline():
            if word.startswith("--session-dir=") or word.startswith("--session_dir="):
                found = list(Path(word.split("=", 1)[1]).glob("metrics_export_port_*"))
                if found:
                    return f"127.0.0.1:{found[0].read_text().strip()}"
    raise AssertionError("no agent of Ray")


def _config(url: str, agent: str) -> str:
    """The provisioned one, with this server's addresses and a quick pace."""
    config = yaml.safe_load((ROOT / "infra/dashboards/provisioning/prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "2s"
    config["rule_files"] = [str(ROOT / "infra/dashboards/provisioning/rules.yml")]
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [url.removeprefix("http://")]}]
    ray = {"job_name": "ray", "static_configs": [{"targets": [agent]}]}
    config["scrape_configs"] = [job, ray]
    return yaml.safe_dump(config)


def _is_lively(series: list[Series]) -> bool:
    return any(math.isfinite(y) and y != 0 for s in series for _, y in s.points)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_query_of_every_chart_is_answered(loaded: Loaded, prefix: str):
    source = Prometheus(loaded.prometheus, prefix, rate_s=30)
    silent: list[str] = []
    dull: list[str] = []
    for board in BOARDS:
        for chart in board.charts:
            series = source.series(chart, loaded.begin_s, loaded.end_s, 5.0)
            answered = {s.query for s in series if s.points}
            if answered != set(range(len(chart.queries))):
                silent.append(f"{board.name}: {chart.title}")
            if not _is_lively(series) and chart.title not in ZERO:
                dull.append(f"{board.name}: {chart.title}")
    assert not silent
    assert not dull


def test_sums_are_those_of_the_answers(loaded: Loaded):
    def total(expr: str) -> float:
        # A scrape that a busy machine answers too late leaves a gap.
        for _ in range(SCRAPES):
            answer = httpx.get(f"{loaded.prometheus}/api/v1/query", params={"query": expr})
            if found := answer.json()["data"]["result"]:
                [result] = found
                return float(result["value"][1])
            time.sleep(1.0)
        raise AssertionError(f"no value of {expr}")

    ended = total("sum(viaserve_request_success_total)")
    assert ended == loaded.requests
    assert total("sum(viaserve_e2e_request_latency_seconds_count)") == ended
    assert total("sum(viaserve_time_to_first_token_seconds_count)") == ended
    assert total("count(sum by (mode) (viaserve_generation_tokens_total))") == len(MODES)
    accepted = total("sum(viaserve_spec_decode_num_accepted_tokens_total)")
    assert accepted == total("sum(viaserve_spec_decode_num_accepted_tokens_per_pos_total)") > 0
    assert total("viaserve_cost_per_million_tokens_usd") > 0


def test_the_page_is_prometheus_text_with_every_node_on_it(loaded: Loaded):
    answer = httpx.get(f"{loaded.server.url}/metrics", timeout=10.0)
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    assert families["viaserve_num_requests_running"].type == "gauge"
    nodes = {s.labels["answered"]: s.value for s in families["viaserve_metrics_nodes"].samples}
    assert nodes == {"yes": 1.0, "no": 0.0}
    assert families["ray_node_cpu_utilization"].samples
    assert not any(name.startswith("ray_viaserve") for name in families)


def test_a_scrape_in_the_style_of_vllms_bench_finds_acceptance_by_its_suffixes(loaded: Loaded):
    page = httpx.get(f"{loaded.server.url}/metrics", timeout=10.0).text
    totals: Counter[str] = Counter()
    by_place: Counter[int] = Counter()
    for line in page.splitlines():
        if line.startswith("viaserve_spec_decode"):
            name, value = line.partition("{")[0], float(line.split()[-1])
            totals[name.removeprefix("viaserve_spec_decode_")] += value
            if place := re.search(r'position="(\d+)"', line):
                by_place[int(place[1])] += value
    drafts, tokens = totals["num_drafts_total"], totals["num_draft_tokens_total"]
    assert 0 < drafts <= tokens
    assert 0 < totals["num_accepted_tokens_total"] <= tokens
    assert sum(by_place.values()) == totals["num_accepted_tokens_total"]
    kept = [by_place[place] for place in sorted(by_place)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] <= drafts


def test_the_preview_draws_every_dashboard(loaded: Loaded, tmp_path):
    source = Prometheus(loaded.prometheus, PREFIXES[0], rate_s=30)
    kept = os.environ.get("VIASERVE_TEST_PICTURES")
    for board in BOARDS:
        path = (Path(kept) if kept else tmp_path) / f"dashboard-{board.name}.png"
        preview.draw(board, source, loaded.begin_s, loaded.end_s, path)
        assert path.stat().st_size > 10_000


def test_a_wrong_query_is_an_error_with_prometheus_own_words(loaded: Loaded):
    from infra.dashboards.charts import Query

    wrong = Chart("Wrong", "It is.", "short", (Query("sum(", ""),))
    with pytest.raises(ValueError, match="parse error"):
        Prometheus(loaded.prometheus, PREFIXES[0]).series(wrong, 0, 1, 1)
