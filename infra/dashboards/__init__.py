"""Grafana dashboards in code, and the files that provision Prometheus and Grafana with them.

`python -m infra.dashboards` writes their JSON, `python -m infra.dashboards.preview` draws them from
a running Prometheus without Grafana.
"""
