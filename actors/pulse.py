"""Signs of life on a stream of batches: an empty batch where there is nothing to say, and the
other side, which takes silence for a loss. It knows nothing of what the batches hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")


async def pulsed(
    batches: AsyncGenerator[list[Item], None], every_s: float
) -> AsyncGenerator[list[Item], None]:
    """The batches, and an empty one each time that `every_s` pass without."""
    coming = asyncio.ensure_future(anext(batches, None))
    try:
        while True:
            await asyncio.wait((coming,), timeout=every_s)
            if not coming.done():
                yield []
            elif (batch := coming.result()) is None:
                return
            else:
                yield batch
                coming = asyncio.ensure_future(anext(batches, None))
    finally:
        coming.cancel()
        await asyncio.wait((coming,))
        await batches.aclose()


async def heard(
    batches: AsyncGenerator[list[Item], None], silence_s: float
) -> AsyncGenerator[list[Item], None]:
    """The batches. Raises TimeoutError after `silence_s` without one."""
    async with aclosing(batches):
        while True:
            # Not wait_for: in Python 3.11 it can swallow a cancellation.
            async with asyncio.timeout(silence_s):
                batch = await anext(batches, None)
            if batch is None:
                return
            yield batch
