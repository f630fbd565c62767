"""Calls to workers under way: what they took, and what becomes of one that is late or lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from actors.lanes import Lane
from actors.messages import StepReply, StepRequest
from actors.pace import size_of
from actors.pool import WorkerGone
from policies.deadline import DeadlineSettings, deadline_s

_GRACE = 0.1
"""Of the deadline, for replies that have come already to be taken in."""

logger = logging.getLogger("ray.serve")

Call = Callable[[Any, StepRequest], Awaitable[StepReply]]
"""Sends a step to a worker's handle. Raises WorkerGone when the worker is dead."""


class Steps:
    """Of one router. `lose` is told of workers that are dead, or silent for `timeout_s`."""

    def __init__(
        self,
        call: Call,
        clock: Callable[[], float],
        timeout_s: float,
        deadline: DeadlineSettings | None,
        lose: Callable[[Lane], None],
    ) -> None:
        self._call = call
        self._clock = clock
        self._timeout_s = timeout_s
        self._deadline = deadline
        self._lose = lose
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, step: Coroutine[Any, Any, None]) -> None:
        """Run it to its end."""
        task = asyncio.create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def answer(
        self,
        lane: Lane,
        request: StepRequest,
        *,
        alone: bool,
        times_late: int = 0,
        late: Callable[[], None] | None = None,
    ) -> tuple[StepReply, float] | None:
        """The worker's reply, and seconds until it came; None where the step failed or the
        worker is lost. `late` is called once the step is past its deadline; the reply of such a
        step is still waited for."""
        begin = self._clock()
        timer = self._late_timer(lane, request, times_late, late)
        try:
            reply = await asyncio.wait_for(self._call(lane.handle, request), self._timeout_s)
        except (WorkerGone, TimeoutError) as error:
            logger.warning("worker %s lost: %s", lane.worker_id, error or "no answer in time")
            self._lose(lane)
            return None
        except Exception:
            logger.exception("a step of worker %s failed", lane.worker_id)
            return None
        finally:
            lane.in_flight -= 1
            if timer is not None:
                timer.end()
        wall_s = self._clock() - begin
        lane.measured(wall_s, reply.busy_s, len(request.items), alone)
        if request.items and alone:
            lane.pace.add(size_of(request), reply.busy_s)
        return reply, wall_s

    def _late_timer(
        self, lane: Lane, request: StepRequest, times_late: int, late: Callable[[], None] | None
    ) -> _LateTimer | None:
        expected_s = lane.pace.expected_s(size_of(request)) if late is not None else None
        if late is None or expected_s is None or self._deadline is None:
            return None
        # It waits behind the steps in flight before it.
        whole_s = lane.in_flight * (expected_s + lane.hop_s)
        after_s = deadline_s(whole_s, times_late, self._deadline)
        return _LateTimer(lane, after_s, late) if after_s < self._timeout_s else None


class _LateTimer:
    """Counts a step among its lane's late ones from its deadline to its end."""

    def __init__(self, lane: Lane, after_s: float, late: Callable[[], None]) -> None:
        self._lane, self._late = lane, late
        self._is_late = False
        self._loop = asyncio.get_running_loop()
        # A router that was itself held up finds replies and timers due at once, and must not
        # take the reply that has come for one that is late.
        self._timer = self._loop.call_later(after_s, self._ask_again, _GRACE * after_s)

    def _ask_again(self, after_s: float) -> None:
        self._timer = self._loop.call_later(after_s, self._fire)

    def _fire(self) -> None:
        self._is_late = True
        self._lane.late += 1
        self._late()

    def end(self) -> None:
        self._timer.cancel()
        self._lane.late -= self._is_late
