"""The dashboards, one a file."""

from infra.dashboards.boards.audit import AUDIT
from infra.dashboards.boards.cost import COST
from infra.dashboards.boards.fleet import FLEET
from infra.dashboards.boards.latency import LATENCY
from infra.dashboards.boards.tiers import TIERS

BOARDS = (FLEET, TIERS, LATENCY, AUDIT, COST)
