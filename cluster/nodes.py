"""What Ray says of the cluster's nodes, and whether an actor or a group has its place on one."""

from __future__ import annotations

from typing import Any

import ray
from ray._private.state import actors, available_resources_per_node
from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup

from policies.placing import Node


def nodes_here() -> list[Node]:
    """The live nodes; what is free lags some 100 ms behind."""
    free = available_resources_per_node()
    return [
        Node(node["Labels"], node["Resources"], free.get(node["NodeID"], {}))
        for node in ray.nodes()
        if node["Alive"]
    ]


def actor_is_placed(handle: Any) -> bool:
    """Whether an actor has got a process on a node, be it still in its constructor."""
    # The public state API asks the dashboard, which our own Ray goes without. A node is named
    # there while the actor still waits in that node's queue; a process is not.
    return bool(actors(actor_id=handle._actor_id.hex())["Pid"])


def group_is_placed(group: PlacementGroup) -> bool:
    """Whether all bundles are reserved."""
    return placement_group_table(group)["state"] == "CREATED"
