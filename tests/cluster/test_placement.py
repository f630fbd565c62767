"""Laws of what is told of a worker's end; placement itself is in test_placement_ray."""

from __future__ import annotations

import pytest
from ray.exceptions import RayActorError

from cluster.placement import reason_of

KILLED = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
    " Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file."
)
GUESSES = " Some common causes include: (1) the process was killed by the OOM killer, (2) …"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RayActorError(
                error_msg=f"The actor died unexpectedly.\n\tclass_name: Worker\n{KILLED}"
            ),
            KILLED,
        ),
        (RayActorError(error_msg=f"The actor died unexpectedly.\n{KILLED}{GUESSES}"), KILLED),
        (ValueError("  "), "ValueError"),
    ],
)
def test_an_end_is_told_in_one_line_without_guesses(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason
