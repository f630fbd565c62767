"""The work that sessions ask of workers, item by item, and the answers. Token ids only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from policies.vocabulary import Plan, SamplingSpec, Tier, TokenLogprobs


class WorkKind(StrEnum):
    """What one item of a step asks for; see WorkItem."""

    EXTEND = "extend"
    DECODE = "decode"
    VERIFY = "verify"
    PROPOSE = "propose"
    ROUNDS = "rounds"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class SessionOpen:
    """What a worker must know of a session beside its ids."""

    sampling: SamplingSpec
    stop_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One session's work in one step. Idempotent: the same item gives the same reply.

    The worker holds, or is told, the session's token ids: `tokens` stand at positions
    `start`, `start + 1`, ...; `prefix_crc` is the CRC-32 of the ids before `start`. A worker
    without that prefix answers NEED_PREFIX. `open` travels with start 0.

    EXTEND: hold the ids and compute their keys and values for the tiers of `plan`.
    DECODE: then choose up to `num_tokens` tokens by g of the full tier, one after another.
    VERIFY: the last `num_tokens` ids of `tokens` are a block; choose g of the full tier at
      each of its positions and after it: `num_tokens + 1` ids.
    PROPOSE: propose a block of up to `num_tokens` ids under `plan`.
    ROUNDS: under an exact plan, where one worker hosts the tiers that propose and the full one:
      up to `num_rounds` rounds of both, which commit at most `num_tokens` tokens.
    AUDIT: let the full tier look at the last `num_audit` ids of `tokens`, which are committed.
    DECODE, VERIFY and ROUNDS answer with logarithms where `num_logprobs` is set (see Extend).
    VERIFY audits as well: the `num_audit` ids before the block, and the first `num_shadow` of it.
    """

    session_id: str
    ticket: int
    kind: WorkKind
    start: int
    tokens: tuple[int, ...]
    prefix_crc: int
    plan: Plan
    num_tokens: int = 0
    open: SessionOpen | None = None
    num_logprobs: int | None = None
    num_audit: int = 0
    num_shadow: int = 0
    num_rounds: int = 0


class ReplyStatus(StrEnum):
    """OK, or why the item was not done."""

    OK = "ok"
    NEED_PREFIX = "need_prefix"


@dataclass(frozen=True, slots=True)
class Audited:
    """The full tier's view of a committed id: whether it is its own choice, and the natural
    logarithm of its processed probability."""

    agrees: bool
    logprob: float


@dataclass(frozen=True, slots=True)
class RoundCounts:
    """One round of ROUNDS: of the `block` ids that were proposed the full tier kept `kept`.
    The draft was asked for `asked` ids and proposed `drafted`; slim has judged `judged` of
    these and kept `screened` (0 and 0 without slim)."""

    block: int
    kept: int
    asked: int
    drafted: int
    judged: int = 0
    screened: int = 0


@dataclass(frozen=True, slots=True)
class WorkReply:
    """The answer to one item. `held`: ids of the session that the worker now holds.

    `tokens` with `tiers` one each: chosen (DECODE, VERIFY, ROUNDS) or proposed (PROPOSE) ids;
    in ROUNDS the tier is the one that proposed a kept id. `rounds`: of ROUNDS, each of them.
    `logprobs` one each where the item asks for them. `ratios`: under CASCADE, of each id of
    the block, its probability over the highest one. `cleared`: under VIA, the logarithms of
    slim's processed probability of the proposed ids that its gate lets through; those come
    first, the others are for the full tier to judge. `shadow`: the same of the ids among
    these others that the plan's shadow gate would have accepted. `audited`: one for each of
    `num_audit` and `num_shadow`. `draft_asked`: tokens that the draft was asked for; of the
    other counts see Counters.
    """

    session_id: str
    ticket: int
    status: ReplyStatus
    held: int = 0
    tokens: tuple[int, ...] = ()
    tiers: tuple[Tier, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    ratios: tuple[float, ...] = ()
    cleared: tuple[float, ...] = ()
    shadow: tuple[float, ...] = ()
    audited: tuple[Audited, ...] = ()
    rounds: tuple[RoundCounts, ...] = ()
    draft_asked: int = 0
    draft_tokens: int = 0
    draft_judged: int = 0
    slim_rows: int = 0
    slim_passes: int = 0
    full_rows: int = 0
    full_passes: int = 0
