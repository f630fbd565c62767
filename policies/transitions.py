"""The session's protocol: every state, every event, and every transition there is."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """WAIT_*: the session wants a step of that kind; BUSY_*: it is in flight."""

    WAIT_DECODE = "wait_decode"
    BUSY_DECODE = "busy_decode"
    WAIT_PROPOSE = "wait_propose"
    BUSY_PROPOSE = "busy_propose"
    WAIT_ROUNDS = "wait_rounds"
    BUSY_ROUNDS = "busy_rounds"
    WAIT_VERIFY = "wait_verify"
    BUSY_VERIFY = "busy_verify"
    DONE = "done"


class Event(StrEnum):
    """What happens to a session. Committed tokens end a round: the plan says what is next."""

    DISPATCHED = "dispatched"
    EXTENDED = "extended"
    PROPOSED = "proposed"
    NOTHING_PROPOSED = "nothing_proposed"
    NEXT_ROUND_PLAIN = "next_round_plain"
    NEXT_ROUND_DRAFTED = "next_round_drafted"
    FAILED = "failed"
    NO_PROPOSER = "no_proposer"
    ONE_WORKER = "one_worker"
    SEVERAL_WORKERS = "several_workers"
    FINISHED = "finished"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.WAIT_DECODE, Event.DISPATCHED): State.BUSY_DECODE,
    (State.WAIT_DECODE, Event.FINISHED): State.DONE,
    (State.BUSY_DECODE, Event.EXTENDED): State.WAIT_DECODE,
    (State.BUSY_DECODE, Event.NEXT_ROUND_PLAIN): State.WAIT_DECODE,
    (State.BUSY_DECODE, Event.NEXT_ROUND_DRAFTED): State.WAIT_PROPOSE,
    (State.BUSY_DECODE, Event.FAILED): State.WAIT_DECODE,
    (State.BUSY_DECODE, Event.FINISHED): State.DONE,
    (State.WAIT_PROPOSE, Event.DISPATCHED): State.BUSY_PROPOSE,
    (State.WAIT_PROPOSE, Event.NO_PROPOSER): State.WAIT_DECODE,
    (State.WAIT_PROPOSE, Event.ONE_WORKER): State.WAIT_ROUNDS,
    (State.WAIT_PROPOSE, Event.FINISHED): State.DONE,
    (State.BUSY_PROPOSE, Event.EXTENDED): State.WAIT_PROPOSE,
    (State.BUSY_PROPOSE, Event.PROPOSED): State.WAIT_VERIFY,
    (State.BUSY_PROPOSE, Event.NOTHING_PROPOSED): State.WAIT_DECODE,
    (State.BUSY_PROPOSE, Event.NEXT_ROUND_PLAIN): State.WAIT_DECODE,
    (State.BUSY_PROPOSE, Event.NEXT_ROUND_DRAFTED): State.WAIT_PROPOSE,
    (State.BUSY_PROPOSE, Event.FAILED): State.WAIT_PROPOSE,
    (State.BUSY_PROPOSE, Event.FINISHED): State.DONE,
    (State.WAIT_ROUNDS, Event.DISPATCHED): State.BUSY_ROUNDS,
    (State.WAIT_ROUNDS, Event.SEVERAL_WORKERS): State.WAIT_PROPOSE,
    (State.WAIT_ROUNDS, Event.FINISHED): State.DONE,
    (State.BUSY_ROUNDS, Event.EXTENDED): State.WAIT_ROUNDS,
    (State.BUSY_ROUNDS, Event.NEXT_ROUND_PLAIN): State.WAIT_DECODE,
    (State.BUSY_ROUNDS, Event.NEXT_ROUND_DRAFTED): State.WAIT_PROPOSE,
    (State.BUSY_ROUNDS, Event.FAILED): State.WAIT_PROPOSE,
    (State.BUSY_ROUNDS, Event.FINISHED): State.DONE,
    (State.WAIT_VERIFY, Event.DISPATCHED): State.BUSY_VERIFY,
    (State.WAIT_VERIFY, Event.FINISHED): State.DONE,
    (State.BUSY_VERIFY, Event.EXTENDED): State.WAIT_VERIFY,
    (State.BUSY_VERIFY, Event.NEXT_ROUND_PLAIN): State.WAIT_DECODE,
    (State.BUSY_VERIFY, Event.NEXT_ROUND_DRAFTED): State.WAIT_PROPOSE,
    (State.BUSY_VERIFY, Event.FAILED): State.WAIT_VERIFY,
    (State.BUSY_VERIFY, Event.FINISHED): State.DONE,
}
