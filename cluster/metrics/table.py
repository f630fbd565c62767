"""`python -m cluster.metrics.table`: writes the table of all metrics into docs/observability.md."""

from __future__ import annotations

from pathlib import Path

from cluster.metrics.catalogue import CATALOGUE
from infra.metric import PREFIX, Metric

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "observability.md"
_BEGIN, _END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"


def table() -> str:
    """In Markdown."""
    head = "| name | type | labels | over processes | meaning |\n|---|---|---|---|---|\n"
    return head + "".join(_row(metric) for metric in CATALOGUE.values())


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    cells = f"`{PREFIX}{metric.name}`", metric.kind, labels, metric.over, metric.what
    return f"| {' | '.join(cells)} |\n"


def renewed(text: str) -> str:
    """The document with the table as it should be."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{table()}{_END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(renewed(DOCUMENT.read_text()))
