"""What autoscaling is told: how much a worker does, and what a router's sessions wait for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from statistics import fmean

from actors.lanes import Lane
from actors.messages import WorkerReport
from policies.vocabulary import Tier


@dataclass(frozen=True, slots=True)
class WorkerUsage:
    """`util_frac`: share of the time that it computes, None where nobody measures it;
    `fill_frac`: share of its `slots` in use."""

    util_frac: float | None
    fill_frac: float
    slots: int


def usage(report: WorkerReport, before: WorkerReport | None) -> WorkerUsage:
    """By its last two reports.

    Slots in use are those of its steps, on average over the time that these took; of full those
    of its sessions, which come back from where they propose.
    """
    probe = report.probe
    util = probe.util_frac if probe.util_mean_frac is None else probe.util_mean_frac
    used = float(report.sessions)
    if Tier.FULL not in report.tiers:
        busy_s = report.busy_s - (before.busy_s if before else 0.0)
        item_s = report.item_s - (before.item_s if before else 0.0)
        used = item_s / busy_s if busy_s > 0 else 0.0
    return WorkerUsage(util, min(used / report.slots, 1.0), report.slots)


@dataclass(frozen=True, slots=True)
class Demand:
    """On a pool, by one router. `waiting`: sessions beyond the slots of its workers; `queue_s`:
    seconds that work waits for its step, on average."""

    waiting: int = 0
    queue_s: float = 0.0


def demand(lanes: Collection[Lane], num_queued: int) -> dict[str, Demand]:
    """By pool. `num_queued` sessions wait for a worker of full, whichever."""
    pools: dict[str, list[Lane]] = defaultdict(list)
    for lane in lanes:
        if not lane.draining:
            pools[lane.report.pool].append(lane)
    found: dict[str, Demand] = {}
    for name, members in pools.items():
        behind = sum(max(len(lane.waiting) - lane.report.slots, 0) for lane in members)
        if any(Tier.FULL in lane.tiers for lane in members):
            behind += num_queued
        waits_s = [lane.wait_s for lane in members if lane.homes]
        found[name] = Demand(behind, fmean(waits_s) if waits_s else 0.0)
    return found
