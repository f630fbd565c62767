"""Dashboards as Grafana's JSON, by Grafana's own builders. Needs grafana-foundation-sdk, a
dependency of development alone: the JSON that it makes is in this folder."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
)

from infra.dashboards.charts import PREFIXES, Board, Chart, Query

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_TAG = "viaserve"
_ROW_IDS = 100
_HEIGHT = {"number": 5}
_RAYS = (
    ("Ray", "/d/rayDefaultDashboard"),
    ("Ray Serve", "/d/rayServeDashboard"),
    ("Ray Serve by deployment", "/d/rayServeDeploymentDashboard"),
)
"""Ray writes these dashboards itself; see docs/observability.md."""


def to_json(board: Board) -> str:
    """The file of a dashboard."""
    return json.dumps(build(board), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def build(board: Board) -> Any:
    """The dashboard as Grafana's model has it."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(f"viaserve-{board.name}")
        .description(board.what)
        .tags([_TAG])
        .timezone("browser")
        .refresh("10s")
        .time("now-30m", "now")
        .readonly()
    )
    _add_variables(made)
    _add_links(made)
    number = 0
    for place, row in enumerate(board.rows):
        made.with_row(dashboard.Row(row.title).id(_ROW_IDS + place))
        for chart in row.charts:
            number += 1
            made.with_panel(_panel(chart, number))
    return made.build()


def _add_variables(made: dashboard.Dashboard) -> None:
    first, *_ = PREFIXES
    made.with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
    made.with_variable(
        dashboard.CustomVariable("prefix")
        .label("metrics of")
        .description("viaserve's own /metrics, or the pages of Ray's agents.")
        .values(",".join(f"{name} : {name}" for name in PREFIXES))
        .current(VariableOption(selected=True, text=first, value=first))
    )
    made.with_variable(
        dashboard.QueryVariable("model")
        .datasource(_SOURCE)
        .query("label_values(${prefix}num_requests_running, model_name)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _add_links(made: dashboard.Dashboard) -> None:
    own = dashboard.DashboardLink("viaserve").type(DashboardLinkType.DASHBOARDS).tags([_TAG])
    made.link(own.as_dropdown(True).include_vars(True).keep_time(True))
    for title, url in _RAYS:
        link = dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url)
        made.link(link.keep_time(True).target_blank(True))


def _panel(chart: Chart, number: int) -> Any:
    kinds: dict[str, Any] = {"number": stat.Panel, "bars": bargauge.Panel}
    panel = kinds.get(chart.kind, timeseries.Panel)()
    panel.id(number).title(chart.title).description(chart.what).unit(chart.unit)
    panel.datasource(_SOURCE).span(chart.width).height(_HEIGHT.get(chart.kind, 8))
    for place, query in enumerate(chart.queries):
        panel.with_target(_target(query, chr(ord("A") + place), chart.kind))
    if chart.kind in ("number", "bars"):
        panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    elif chart.kind in ("lines", "stack"):
        _draw_lines(panel, stacked=chart.kind == "stack")
    if chart.unit == "percentunit":
        panel.min(0)
    return panel


def _draw_lines(panel: timeseries.Panel, *, stacked: bool) -> None:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST)
    panel.legend(legend.placement(LegendPlacement.BOTTOM).show_legend(True))
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    panel.line_width(1).fill_opacity(40 if stacked else 8)
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))


def _target(query: Query, letter: str, kind: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter)
    target.datasource(_SOURCE)
    # Over a range, what has gone would still be shown.
    return target.instant() if kind in ("number", "bars") else target.range()
