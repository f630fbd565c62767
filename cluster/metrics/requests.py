"""An ingress's figures, out to metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice

from actors.ingress.tally import Taken
from cluster.metrics import catalogue
from infra.metric import Metric
from infra.metrics import Exporter

_AT_ONCE = 200
"""Values told in one go, a few microseconds each: streams run on this event loop."""


async def export_requests(exporter: Exporter, taken: Taken) -> None:
    """Tell what has come since the last time."""
    for mode, tokens in taken.prompt_tokens.items():
        exporter.more(catalogue.PROMPT_TOKENS, tokens, mode=mode)
    for (mode, reason), count in taken.ended.items():
        exporter.more(catalogue.SUCCESS, count, mode=mode, finished_reason=reason)
    for (mode, status), count in taken.failed.items():
        exporter.more(catalogue.FAILURE, count, mode=mode, status=status)
    await export_values(exporter, catalogue.FIRST_TOKEN, taken.first_s)
    await export_values(exporter, catalogue.TOKEN_GAP, taken.gap_s)
    await export_values(exporter, catalogue.WHOLE, taken.whole_s)


async def export_values(
    exporter: Exporter, metric: Metric, by_mode: dict[str, list[float]]
) -> None:
    """Count values in a histogram, and let others run in between."""
    for mode, values in by_mode.items():
        for some in _batches(values):
            exporter.values(metric, some, mode=mode)
            await asyncio.sleep(0)


def _batches(values: Iterable[float]) -> Iterator[list[float]]:
    rest = iter(values)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
