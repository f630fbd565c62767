"""Laws of the dashboards: the files are what the code makes, and every query is about a metric
that is exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from cluster.metrics import table
from cluster.metrics.catalogue import CATALOGUE
from infra.dashboards.boards import BOARDS
from infra.dashboards.charts import PREFIXES, Board
from infra.dashboards.prometheus import Prometheus

FOLDER = Path(table.DOCUMENT).parents[1] / "infra" / "dashboards"
OURS = re.compile(r"\$\{prefix\}(\w+)")
RAYS = re.compile(r"\b(ray_\w+)")
EXPORTED_BY_RAY = {"ray_node_cpu_utilization", "ray_node_mem_used"}


def exprs(board: Board) -> list[str]:
    return [query.expr for chart in board.charts for query in chart.queries]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_file_is_what_the_code_makes(board):
    grafana = pytest.importorskip("infra.dashboards.grafana", reason="make env-dev")
    text = (FOLDER / "json" / f"{board.name}.json").read_text()
    assert text == grafana.to_json(board), "run `python -m infra.dashboards`"
    made = json.loads(text)
    ids = Counter(panel["id"] for panel in made["panels"])
    assert max(ids.values()) == 1
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in made["panels"])


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_query_asks_for_metrics_that_are_exported_with_these_labels(board):
    for expr in exprs(board):
        names = OURS.findall(expr)
        assert names or RAYS.findall(expr), expr
        assert set(RAYS.findall(expr)) <= EXPORTED_BY_RAY, expr
        for name in names:
            plain = re.sub(r"_(bucket|sum|count)$", "", name)
            metric = CATALOGUE.get(name) or CATALOGUE[plain]
            assert (metric.kind == "histogram") == (metric.name != name), expr


def test_every_metric_is_on_some_dashboard():
    shown = {name for board in BOARDS for expr in exprs(board) for name in OURS.findall(expr)}
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} | shown
    left_out = {"gpu_memory_total_bytes", "gpu_temperature_celsius", "worker_sessions"}
    # What the router says of them is on the same dashboards by worker.
    left_out |= {"pool_util_frac", "pool_kv_frac"}
    assert set(CATALOGUE) - plain == left_out


def test_the_document_has_the_table_of_all_metrics():
    text = table.DOCUMENT.read_text()
    assert text == table.renewed(text), "run `python -m cluster.metrics.table`"


def test_provisioning_is_yaml_and_names_one_data_source_and_the_folder():
    root = FOLDER / "provisioning" / "grafana"
    [source] = yaml.safe_load((root / "datasources" / "viaserve.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    providers = yaml.safe_load((root / "dashboards" / "viaserve.yaml").read_text())["providers"]
    assert [provider["type"] for provider in providers] == ["file"]


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool: apt-get install prometheus"
)
@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-ray.yml"])
def test_prometheus_takes_its_configuration_and_rules(name):
    asked = ["promtool", "check", "config", str(FOLDER / "provisioning" / name)]
    told = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stdout + told.stderr


def test_a_share_whose_part_never_happened_is_none_of_it(tmp_path):
    """All drafts of two_tier were refused, and so there is no counter of those kept."""
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: apt-get install prometheus")
    common = 'model_name="m", mode="two_tier"'
    kept = 'model_name="m", mode="three_tier"'
    series = {
        f"viaserve_draft_judged_tokens_total{{{common}}}": "0+60x20",
        f"viaserve_draft_judged_tokens_total{{{kept}}}": "0+60x20",
        f'viaserve_generation_tokens_total{{{kept}, tier="draft"}}': "0+15x20",
        f"viaserve_spec_decode_num_drafts_total{{{common}}}": "0+30x20",
        f"viaserve_spec_decode_num_draft_tokens_total{{{common}}}": "0+60x20",
    }
    wanted = {
        "Rejection rate": {"two_tier": 1, "three_tier": 0.75},
        "Tokens a block": {"two_tier": 1},
        "Blocks kept by full": {"two_tier": 0},
    }
    charts = {chart.title: chart for board in BOARDS for chart in board.charts}
    spell = Prometheus("", PREFIXES[0], rate_s=300).spell
    told = [
        {
            "expr": f"({spell(charts[title].queries[0].expr)}) >= 0",
            "eval_time": "20m",
            "exp_samples": [
                {"labels": f'{{mode="{mode}"}}', "value": value} for mode, value in modes.items()
            ],
        }
        for title, modes in wanted.items()
    ]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": told}
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"tests": [test]}))
    asked = ["promtool", "test", "rules", str(path)]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr
