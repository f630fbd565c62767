"""Laws of /metrics over several nodes: who answers is on the page, who does not is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.metrics import relay
from tests.infra.test_exposition import ONE
from tests.serving.server import free_port

COSTS = """# HELP ray_viaserve_cost_usd_total USD.
# TYPE ray_viaserve_cost_usd_total counter
ray_viaserve_cost_usd_total{pool="a"} 0.25
# HELP ray_viaserve_generation_tokens_total Tokens.
# TYPE ray_viaserve_generation_tokens_total counter
ray_viaserve_generation_tokens_total{tier="full"} 300000.0
ray_viaserve_generation_tokens_total{tier="slim"} 200000.0
"""


class Agent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write((ONE + COSTS).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quietly."""


@pytest.fixture
def agent() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Agent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()
        thread.join()


async def samples(monkeypatch, agents: list[str]) -> dict[str, list]:
    monkeypatch.setattr(relay, "_agents", lambda: agents)
    families = text_string_to_metric_families(await relay.page())
    return {family.name: family.samples for family in families}


async def test_a_silent_agent_is_counted_and_the_others_are_on_the_page(monkeypatch, agent):
    silent = f"http://127.0.0.1:{free_port()}/metrics"
    found = await samples(monkeypatch, [agent, silent])
    nodes = {sample.labels["answered"]: sample.value for sample in found["viaserve_metrics_nodes"]}
    assert nodes == {"yes": 1.0, "no": 1.0}
    assert [sample.value for sample in found["viaserve_tokens"]] == [3.0]


async def test_the_cost_of_a_million_tokens_is_that_of_all_pools_and_tiers(monkeypatch, agent):
    found = await samples(monkeypatch, [agent])
    [cost] = found["viaserve_cost_per_million_tokens_usd"]
    assert cost.value == pytest.approx(0.5)


async def test_without_ray_the_page_is_valid_and_says_that_there_is_no_node(monkeypatch):
    def gone() -> list[str]:
        raise RuntimeError("no Ray")

    monkeypatch.setattr(relay, "_agents", gone)
    families = list(text_string_to_metric_families(await relay.page()))
    assert [family.name for family in families] == ["viaserve_metrics_nodes"]
