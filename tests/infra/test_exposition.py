"""Laws of a page of metrics that is joined from several."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from infra.exposition import Page

ONE = """# HELP python_info Python.
# TYPE python_info gauge
python_info{version="3.11"} 1.0
# HELP ray_viaserve_tokens_total Tokens.
# TYPE ray_viaserve_tokens_total counter
ray_viaserve_tokens_total{NodeAddress="10.0.0.1",otel_scope_name="x",tier="full"} 3.0
# HELP ray_viaserve_wait_seconds Waits.
# TYPE ray_viaserve_wait_seconds histogram
ray_viaserve_wait_seconds_bucket{NodeAddress="10.0.0.1",le="0.1"} 1.0
ray_viaserve_wait_seconds_bucket{NodeAddress="10.0.0.1",le="+Inf"} 2.0
ray_viaserve_wait_seconds_count{NodeAddress="10.0.0.1"} 2.0
ray_viaserve_wait_seconds_sum{NodeAddress="10.0.0.1"} 0.3
# HELP ray_node_cpu_utilization CPU.
# TYPE ray_node_cpu_utilization gauge
ray_node_cpu_utilization{ip="10.0.0.1"} 12.0
# HELP ray_tasks Tasks.
# TYPE ray_tasks gauge
ray_tasks 1.0
"""
TWO = ONE.replace("10.0.0.1", "10.0.0.2")


def joined(*pages: str) -> Page:
    page = Page(("ray_viaserve_", "ray_node_"), {"ray_viaserve_": "viaserve_"})
    for text in pages:
        page.add(text)
    return page


def test_a_joined_page_names_each_family_once_and_loses_no_sample():
    text = joined(ONE, TWO).text()
    families = {f.name: f for f in text_string_to_metric_families(text)}
    assert set(families) == {"viaserve_tokens", "viaserve_wait_seconds", "ray_node_cpu_utilization"}
    assert text.count("# TYPE viaserve_tokens_total counter") == 1
    assert len(families["viaserve_tokens"].samples) == 2
    assert families["viaserve_wait_seconds"].type == "histogram"
    assert len(families["viaserve_wait_seconds"].samples) == 8
    assert families["viaserve_tokens"].samples[0].labels == {
        "NodeAddress": "10.0.0.1",
        "tier": "full",
    }


def test_a_line_ends_at_a_newline_alone():
    page = joined(ONE.replace('tier="full"', 'tier="a\u2028b"'))
    assert 'tier="a\u2028b"} 3.0' in page.text()


def test_a_total_is_over_all_samples_of_the_family_and_zero_without():
    page = joined(ONE, TWO)
    assert page.total("viaserve_tokens_total") == 6.0
    assert page.total("viaserve_other_total") == 0.0


def test_a_gauge_of_our_own_is_on_the_page_and_junk_is_not():
    page = joined("no metrics here\n<html>\n", ONE)
    page.gauge("viaserve_nodes", "Nodes.", [('{answered="yes"}', 1)])
    families = {f.name: f for f in text_string_to_metric_families(page.text())}
    assert families["viaserve_nodes"].samples[0].value == 1
    assert "html" not in page.text()
