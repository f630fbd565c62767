"""Whether a worker can be placed on a cluster, and what is missing where it cannot.

Knows nodes as labels and amounts, as Ray counts them; places nothing itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from policies.labels import matches

_TINY = 1e-6
"""Amounts come as sums of fractions."""


@dataclass(frozen=True, slots=True)
class Node:
    """A live machine: its labels, what it has (`total`) and what of that is not taken."""

    labels: Mapping[str, str]
    total: Mapping[str, float]
    free: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Demand:
    """A worker: so many processes, each with these resources, on nodes that the selector takes
    (see `matches`). `one_node`: all of them on the same one."""

    resources: Mapping[str, float]
    selector: Mapping[str, str] = field(default_factory=dict[str, str])
    processes: int = 1
    one_node: bool = False


class Room(StrEnum):
    """free: there is room now; taken: there would be, but others have it; nowhere: no node of
    the cluster as it is could ever do."""

    FREE = "free"
    TAKEN = "taken"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` says what is wanted and what is missing, for a person."""

    room: Room
    why: str


def judge(demand: Demand, nodes: Sequence[Node]) -> Verdict:
    """Where the demand stands with these nodes."""
    wants = f"wants {describe(demand)}"
    if not nodes:
        return Verdict(Room.NOWHERE, f"{wants}: the cluster has no node")
    fitting = [node for node in nodes if matches(demand.selector, node.labels)]
    if not fitting:
        return Verdict(Room.NOWHERE, f"{wants}: {no_such_node(demand.selector, nodes)}")
    if not _holds(demand, [node.total for node in fitting]):
        return Verdict(Room.NOWHERE, f"{wants}: {_too_small(demand, fitting)}")
    if not _holds(demand, [node.free for node in fitting]):
        return Verdict(Room.TAKEN, f"{wants}: {_taken(demand, fitting)}")
    return Verdict(Room.FREE, f"{wants}: there is room, it is about to start")


def choose(demands: Sequence[Demand], nodes: Sequence[Node]) -> int:
    """Which of the demands, best first, to go for: the first that has room now, else the first
    that the cluster could hold, else the first, for which nodes may yet come."""
    rooms = [judge(demand, nodes).room for demand in demands]
    for room in (Room.FREE, Room.TAKEN):
        if room in rooms:
            return rooms.index(room)
    return 0


def count(each: Mapping[str, float], amounts: Mapping[str, float]) -> int:
    """How many processes fit into the amounts. A fraction of a GPU is of one GPU, so two thirds
    fit once into each."""
    assert any(each.values()), "a process takes something"
    return min(_times(k, amount, amounts.get(k, 0.0)) for k, amount in each.items() if amount)


def _times(kind: str, amount: float, there: float) -> int:
    if kind != "GPU" or amount >= 1:
        return math.floor(there / amount + _TINY)
    whole = math.floor(there + _TINY)
    return whole * math.floor(1 / amount + _TINY) + math.floor((there - whole) / amount + _TINY)


def _holds(demand: Demand, amounts: Sequence[Mapping[str, float]]) -> bool:
    counts = [count(demand.resources, there) for there in amounts]
    return (max(counts) if demand.one_node else sum(counts)) >= demand.processes


def describe(demand: Demand) -> str:
    """The demand in words."""
    each = ", ".join(_amounts(demand.resources))
    text = each if demand.processes == 1 else f"{demand.processes} times ({each})"
    if demand.one_node and demand.processes > 1:
        text += " on one node"
    return f"{text} with {pairs(demand.selector)}" if demand.selector else text


def _amounts(resources: Mapping[str, float]) -> list[str]:
    return [f"{amount:g} {kind}" for kind, amount in sorted(resources.items()) if amount]


def pairs(labels: Mapping[str, str]) -> str:
    """Labels in words."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def no_such_node(selector: Mapping[str, str], nodes: Sequence[Node]) -> str:
    """Names the labels that no node has, or that no node has together."""
    faults: list[str] = []
    for key, value in sorted(selector.items()):
        if not any(matches({key: value}, node.labels) for node in nodes):
            there = sorted({node.labels[key] for node in nodes if key in node.labels})
            seen = f"there is {', '.join(there)}" if there else "none has that label"
            faults.append(f"no node has {key}={value} ({seen})")
    return "; ".join(faults) or "no node has these labels together"


def _too_small(demand: Demand, nodes: Sequence[Node]) -> str:
    such = " with these labels" if demand.selector else ""
    lacks = [
        f"{kind} (at most {best:g})"
        for kind, amount in sorted(demand.resources.items())
        if (best := max(node.total.get(kind, 0.0) for node in nodes)) < amount - _TINY
    ]
    if lacks:
        return f"no node{such} has enough {', '.join(lacks)}"
    counts = [count(demand.resources, node.total) for node in nodes]
    if demand.processes == 1:
        return f"no node{such} has all of that together"
    if demand.one_node:
        return f"no node{such} has room for more than {max(counts)} of them"
    return f"all nodes{such} together have room for {sum(counts)} of them"


def _taken(demand: Demand, nodes: Sequence[Node]) -> str:
    such = " with these labels" if demand.selector else ""
    free = [
        f"{sum(n.free.get(kind, 0.0) for n in nodes):g} of"
        f" {sum(n.total.get(kind, 0.0) for n in nodes):g} {kind}"
        for kind, amount in sorted(demand.resources.items())
        if amount
    ]
    number = f"the node{such}" if len(nodes) == 1 else f"the {len(nodes)} nodes{such}"
    return f"all taken; {number}: free {', '.join(free)}"
