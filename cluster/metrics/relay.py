"""GET /metrics: what Ray's agents of all nodes have, on one page, under our own names.

Each node's agent serves the metrics of the processes there, ours as `ray_viaserve_…`. A
Prometheus that scrapes this page needs to know no node. An agent that does not answer in time
is left out, and the page says how many were.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import ray

from infra.exposition import Page
from infra.metric import PREFIX

logger = logging.getLogger("ray.serve")

KEPT = (
    f"ray_{PREFIX}",
    "ray_node_",
    "ray_cluster_active_nodes",
    "ray_serve_deployment_replica_",
    "ray_serve_num_ongoing_",
)
"""What is taken over: our own, and of Ray's what tells of nodes and of Serve's replicas."""
_AGENT_S = 4.0
"""Prometheus gives a scrape 10 seconds."""
_NODES_S = 2.0


async def page() -> str:
    """The page. Without an answer of Ray's control service it is nearly empty."""
    joined = Page(KEPT, {f"ray_{PREFIX}": PREFIX})
    try:
        async with asyncio.timeout(_NODES_S):
            agents = await asyncio.to_thread(_agents)
    except Exception:
        logger.exception("Ray did not say which nodes there are")
        agents = []
    async with httpx.AsyncClient(timeout=_AGENT_S, trust_env=False) as client:
        answers = await asyncio.gather(*(_scrape(client, url) for url in agents))
    for text in answers:
        if text is not None:
            joined.add(text)
    _add_own(joined, sum(text is not None for text in answers), len(agents))
    return joined.text()


def _agents() -> list[str]:
    """Where each live node's agent serves its metrics."""
    nodes: list[dict[str, Any]] = ray.nodes()
    return [
        f"http://{_host(node['NodeManagerAddress'])}:{node['MetricsExportPort']}/metrics"
        for node in nodes
        if node["Alive"] and node["MetricsExportPort"] > 0
    ]


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def _scrape(client: httpx.AsyncClient, url: str) -> str | None:
    try:
        answer = await client.get(url)
        answer.raise_for_status()
        return answer.text
    except httpx.HTTPError as error:
        logger.warning("no metrics from %s: %r", url, error)
        return None


def _add_own(joined: Page, answered: int, agents: int) -> None:
    what = "Nodes of the cluster by whether their metrics are on this page."
    nodes = [('{answered="yes"}', answered), ('{answered="no"}', agents - answered)]
    joined.gauge(f"{PREFIX}metrics_nodes", what, nodes)
    cost = joined.total(f"{PREFIX}cost_usd_total")
    tokens = joined.total(f"{PREFIX}generation_tokens_total")
    if cost and tokens:
        what = "USD for workers over committed tokens, in millions, of all that is on this page."
        value = [("", cost / tokens * 1e6)]
        joined.gauge(f"{PREFIX}cost_per_million_tokens_usd", what, value)
