"""Laws of placing: room now, room that others have, or none ever, and what is missing."""

from __future__ import annotations

import pytest

from policies.labels import matches
from policies.placing import Demand, Node, Room, choose, count, judge

L4 = {"accelerator": "L4"}
H100 = {"accelerator": "H100"}


def node(labels: dict[str, str], total: dict[str, float], **taken: float) -> Node:
    """A node of which so much is taken."""
    return Node(labels, total, {kind: n - taken.get(kind, 0.0) for kind, n in total.items()})


def cheap(**taken: float) -> Node:
    return node(L4, {"CPU": 4, "GPU": 1}, **taken)


def large(**taken: float) -> Node:
    return node(H100, {"CPU": 192, "GPU": 8}, **taken)


HEAD = node({}, {"CPU": 8})
DRAFT = Demand({"CPU": 2, "GPU": 0.5}, L4)
FULL = Demand({"CPU": 8, "GPU": 1}, H100, processes=4, one_node=True)
SPREAD = Demand({"CPU": 8, "GPU": 1}, H100, processes=10)


@pytest.mark.parametrize(
    ("selector", "takes"),
    [
        ({}, ["none", "a", "b"]),
        ({"x": "a"}, ["a"]),
        ({"x": "!a"}, ["none", "b"]),
        ({"x": "in(a,c)"}, ["a"]),
        ({"x": "in(a, b)"}, ["a", "b"]),
        ({"x": "!in(a,b)"}, ["none"]),
        ({"x": "a", "y": "z"}, []),
        ({"y": "!z"}, ["none", "a", "b"]),
    ],
)
def test_selector_takes_what_rays_does(selector: dict[str, str], takes: list[str]):
    nodes = {"none": {}, "a": {"x": "a"}, "b": {"x": "b"}}
    assert [name for name, labels in nodes.items() if matches(selector, labels)] == takes


@pytest.mark.parametrize(
    ("demand", "nodes", "room", "says"),
    [
        (DRAFT, [HEAD, cheap()], Room.FREE, "there is room"),
        (DRAFT, [cheap(GPU=0.5, CPU=2)], Room.FREE, "there is room"),
        (DRAFT, [cheap(GPU=1), cheap(GPU=0.75)], Room.TAKEN, "free 8 of 8 CPU, 0.25 of 2 GPU"),
        (DRAFT, [cheap(CPU=3)], Room.TAKEN, "the node with these labels: free 1 of 4 CPU"),
        (DRAFT, [], Room.NOWHERE, "the cluster has no node"),
        (DRAFT, [HEAD], Room.NOWHERE, "no node has accelerator=L4 (none has that label)"),
        (DRAFT, [HEAD, large()], Room.NOWHERE, "no node has accelerator=L4 (there is H100)"),
        (
            Demand({"GPU": 1}, L4 | {"zone": "b"}),
            [node(L4 | {"zone": "a"}, {"GPU": 1}), node(H100 | {"zone": "b"}, {"GPU": 1})],
            Room.NOWHERE,
            "no node has these labels together",
        ),
        (
            Demand({"CPU": 16, "GPU": 1}, L4),
            [cheap(), HEAD],
            Room.NOWHERE,
            "no node with these labels has enough CPU (at most 4)",
        ),
        (
            Demand({"CPU": 6, "GPU": 1}),
            [cheap(), HEAD],
            Room.NOWHERE,
            "no node has all of that together",
        ),
        (FULL, [large()], Room.FREE, "wants 4 times (8 CPU, 1 GPU) on one node"),
        (FULL, [large(GPU=6), large(GPU=6)], Room.TAKEN, "all taken; the 2 nodes"),
        (
            FULL,
            [node(H100, {"CPU": 64, "GPU": 2})] * 2,
            Room.NOWHERE,
            "no node with these labels has room for more than 2 of them",
        ),
        (SPREAD, [large(), large()], Room.FREE, "there is room"),
        (SPREAD, [large(), large(GPU=7)], Room.TAKEN, "free 384 of 384 CPU, 9 of 16 GPU"),
        (
            SPREAD,
            [large()],
            Room.NOWHERE,
            "all nodes with these labels together have room for 8 of them",
        ),
    ],
)
def test_verdict_tells_what_can_never_be_from_what_is_taken_now(
    demand: Demand, nodes: list[Node], room: Room, says: str
):
    verdict = judge(demand, nodes)
    assert verdict.room is room
    assert says in verdict.why
    assert "\n" not in verdict.why


def test_what_is_wanted_is_said_whole():
    why = judge(DRAFT, [HEAD]).why
    assert why.startswith("wants 2 CPU, 0.5 GPU with accelerator=L4: ")


@pytest.mark.parametrize(
    ("each", "there", "times"),
    [
        ({"GPU": 0.5}, {"GPU": 2}, 4),
        ({"GPU": 0.4}, {"GPU": 2}, 4),  # 2 on each card, not 5 on both
        ({"GPU": 0.6}, {"GPU": 3}, 3),
        ({"GPU": 0.25}, {"GPU": 0.75}, 3),
        ({"GPU": 0.5}, {"GPU": 1.25}, 2),
        ({"GPU": 0.1}, {"GPU": 1}, 10),
        ({"CPU": 0.1}, {"CPU": 0.3}, 3),
        ({"GPU": 2}, {"GPU": 7}, 3),
        ({"CPU": 2, "GPU": 0.5, "disk": 0}, {"CPU": 3, "GPU": 8}, 1),
        ({"fpga": 1}, {"CPU": 64}, 0),
    ],
)
def test_a_fraction_of_a_gpu_is_of_one_gpu(
    each: dict[str, float], there: dict[str, float], times: int
):
    assert count(each, there) == times


@pytest.mark.parametrize(
    ("nodes", "chosen"),
    [
        ([cheap(), large()], 0),
        ([cheap(GPU=1), large()], 1),
        ([large()], 1),
        ([HEAD], 2),
        ([cheap(GPU=1, CPU=3), node({}, {"CPU": 2}, CPU=1)], 0),
        ([node({}, {"CPU": 1})], 0),
        ([], 0),
    ],
)
def test_first_with_room_now_is_chosen_then_first_that_could_ever_have(
    nodes: list[Node], chosen: int
):
    demands = [DRAFT, Demand({"CPU": 2, "GPU": 0.5}, H100), Demand({"CPU": 2})]
    assert choose(demands, nodes) == chosen
