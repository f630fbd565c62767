"""A running Ray cluster: is it there, is it the same Ray, and has each pool a place on it?"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from cluster.config import Config
from cluster.console.words import some
from cluster.doctor.finding import Finding, failed, ok, warning
from cluster.errors import ConfigError
from cluster.preflight import check_control
from cluster.reach import JOIN_ADVICE, START_ADVICE, reason, unreachable
from policies.placing import Node, Room, judge

AREA = "Ray"


def check_cluster(config: Config, address: str) -> Iterator[Finding]:
    """Connects as a driver and leaves again; nothing runs there."""
    if (fault := unreachable(address)) is not None:
        yield failed(AREA, "address", f"{address}: {fault}", START_ADVICE)
        return
    import ray

    from cluster.nodes import nodes_here

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises many kinds; versions that differ among them
        yield failed(AREA, "address", f"{address}: {reason(error)}", JOIN_ADVICE)
        return
    try:
        nodes = nodes_here()
    finally:
        ray.shutdown()
    yield ok(AREA, "address", f"{address}: {some(len(nodes), 'node')}", nodes=len(nodes))
    yield from judged(config, nodes)


def judged(config: Config, nodes: list[Node]) -> Iterator[Finding]:
    """Each node, then each pool's best place among its ways."""
    for number, node in enumerate(nodes):
        amounts = ", ".join(f"{node.total.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
        labels = {k: v for k, v in node.labels.items() if not k.startswith("ray.io/node-")}
        said = f"{amounts}; {', '.join(f'{k}={v}' for k, v in labels.items()) or 'no labels'}"
        yield ok(AREA, f"node {number + 1}", said, labels=labels, total=dict(node.total))
    try:
        check_control(config, nodes)
    except ConfigError as error:
        advice = "add such a node (`ray start --labels`), or change control"
        yield failed(AREA, "control", str(error), advice)
    for name, pool in config.pools.items():
        what = f"pool {name}"
        if isinstance(pool.num_cpus, str):
            advice = f"--set pools.{name}.num_cpus=… (a number): `auto` is this machine's share"
            yield warning(AREA, what, "num_cpus is auto", advice)
            continue
        verdicts = [judge(way.demand, nodes) for way in pool.ways]
        best = min(verdicts, key=lambda verdict: list(Room).index(verdict.room))
        room = {"room": str(best.room)}
        if best.room is Room.FREE:
            yield ok(AREA, what, best.why.removesuffix(", it is about to start"), **room)
        elif best.room is Room.TAKEN:
            yield warning(AREA, what, best.why, "it waits until others are done", **room)
        else:
            advice = f"add such a node (`ray start --labels`), or change pools.{name}"
            yield failed(AREA, what, best.why, advice, **room)
