"""The words every part shares: tiers, plans, sampling parameters, what a session is.

Pure values. It knows token ids and never text, models or processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from policies.audit import AuditFigures, AuditRow
from policies.gates import Gate


class Tier(StrEnum):
    """A model role."""

    DRAFT = "draft"
    SLIM = "slim"
    FULL = "full"


class PlanKind(StrEnum):
    """What a session does in a round. CASCADE and VIA are lossy: what they commit may differ
    from what the full tier would have chosen."""

    OFF = "off"
    TWO_TIER = "two_tier"
    THREE_TIER = "three_tier"
    CASCADE = "cascade"
    VIA = "via"

    @property
    def exact(self) -> bool:
        """Whether every committed token is the full tier's own choice."""
        return self not in (PlanKind.CASCADE, PlanKind.VIA)

    @property
    def tiers(self) -> frozenset[Tier]:
        """The tiers that propose under it."""
        return _PROPOSING[self]


_PROPOSING = {
    PlanKind.OFF: frozenset[Tier](),
    PlanKind.TWO_TIER: frozenset({Tier.DRAFT}),
    PlanKind.THREE_TIER: frozenset({Tier.DRAFT, Tier.SLIM}),
    PlanKind.CASCADE: frozenset({Tier.DRAFT}),
    PlanKind.VIA: frozenset({Tier.DRAFT, Tier.SLIM}),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A round's shape.

    `gamma` is the draft length: tokens the draft proposes in one go. `block` is how many
    tokens (screened by slim) go to the full tier in one go; with TWO_TIER and CASCADE the
    block is the draft's `gamma` tokens; with VIA it is how many tokens the cheap tiers commit
    at most before they answer. `alpha`: CASCADE's leniency, 0 to 1.

    `gate`: VIA's, at the audit's `level` as it was when the round began; None in a request
    that leaves it to the router. `shadow`: where the gate is closed, the gate whose would-be
    commits the full tier's judgement is evidence about.
    """

    kind: PlanKind
    gamma: int = 4
    block: int = 8
    alpha: float = 0.0
    gate: Gate | None = None
    level: int = 0
    shadow: Gate | None = None

    @property
    def block_len(self) -> int:
        """Tokens of one block, the rows that a round asks of the full tier less one."""
        match self.kind:
            case PlanKind.OFF:
                return 0
            case PlanKind.TWO_TIER | PlanKind.CASCADE:
                return self.gamma
            case PlanKind.THREE_TIER | PlanKind.VIA:
                return self.block


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How a token is chosen from logits; the neutral values switch a rule off.

    Order: penalties, logit bias, grammar, temperature, min-p, top-k, top-p (vLLM's order).
    `temperature` 0 is plain argmax. `top_k` 0 is off. `logit_bias` holds (token id, bias).
    Repetition penalty counts prompt and output, presence and frequency the output only.
    `grammar`: JSON schema of the answer as canonical text, opaque here; "" is none.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: str = ""

    @property
    def has_penalties(self) -> bool:
        """True where the earlier tokens of the session change the logits."""
        return (
            self.repetition_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )


@dataclass(frozen=True, slots=True)
class SamplingSpec:
    """Everything but token ids that g_M depends on: parameters, noise key, prompt length."""

    params: SamplingParams
    seed: int
    choice: int
    prompt_len: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one model's processed distribution sees the id that was drafted there.

    `ratio`: its probability over the highest one, 0 to 1. `margin`: the difference of the two
    highest probabilities. `logprob`: of the drafted id, `own_logprob`: of the id that the model
    chose itself; natural logarithms, -inf where the filters leave the id out. At temperature 0
    the distribution is the one at temperature 1 without filters.
    """

    ratio: float
    margin: float
    logprob: float
    own_logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """What the model itself, before any processing, gives a chosen id: the natural logarithm
    of its softmax, and the `top` (id, logarithm) pairs with the highest ones, best first."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """One running choice of one request, as it is admitted.

    `tokens` is the prompt followed by whatever was already committed elsewhere, so that a
    session can be continued anywhere; `sampling.prompt_len` says where the prompt ends.
    `stop_ids` end the session (they are committed, then never shown); `max_tokens` bounds
    the committed tokens, those already in `tokens` included. With `num_logprobs` every commit
    has the full model's logarithms of its tokens and of so many best ones. `auto`: the router
    chooses each round's plan; gamma and block of `plan` are bounds.
    """

    session_id: str
    tokens: tuple[int, ...]
    sampling: SamplingSpec
    max_tokens: int
    stop_ids: frozenset[int] = frozenset()
    plan: Plan = field(default_factory=lambda: Plan(PlanKind.OFF))
    num_logprobs: int | None = None
    auto: bool = False

    @property
    def mode(self) -> str:
        """What the request asked for; "auto" where the router chooses."""
        return "auto" if self.auto else self.plan.kind.value


class FinishReason(StrEnum):
    """Why a session ended; the values are OpenAI's where OpenAI has one."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Counters:
    """What a session has cost so far; cumulative. Rows are scored positions, passes steps.

    draft_tokens: tokens the draft proposed; draft_judged: those that slim or full looked at
    (what follows a rejected token is not). slim_rows / slim_passes and full_rows /
    full_passes: positions scored, and forward passes that scored them, prefill not counted.
    from_*: committed tokens by the tier that produced them. unseen: tokens committed without
    the full tier (VIA). lenient: tokens committed though the full tier chose another (CASCADE).
    audit_rows / audit_passes: what background looks of the full tier have cost beside that.
    """

    rounds: int = 0
    draft_tokens: int = 0
    draft_judged: int = 0
    slim_rows: int = 0
    slim_passes: int = 0
    full_rows: int = 0
    full_passes: int = 0
    from_draft: int = 0
    from_slim: int = 0
    from_full: int = 0
    unseen: int = 0
    lenient: int = 0
    audit_rows: int = 0
    audit_passes: int = 0


class Stage(StrEnum):
    """What a session does in a span of time: QUEUE until its first step, PREFILL while its prompt
    is computed; ROUNDS are whole rounds in one call whose parts nobody could tell apart."""

    QUEUE = "queue"
    PREFILL = "prefill"
    PROPOSE = "propose"
    SCREEN = "screen"
    VERIFY = "verify"
    DECODE = "decode"
    ROUNDS = "rounds"


@dataclass(frozen=True, slots=True)
class StageTime:
    """One span of a session: a call to a worker, or a tier's part of one.

    `round` counts from 0, prefill included. `start_s`: seconds since the request came in;
    `busy_s`: seconds that the worker computed, for all the `batch` sessions of the step.
    `rows`: positions computed or scored for this session, `committed`: tokens.
    """

    stage: Stage
    tier: Tier | None
    pool: str
    worker: str
    round: int
    start_s: float
    wall_s: float
    busy_s: float
    batch: int
    rows: int
    committed: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Tokens handed to the client, never taken back. `tiers` has one entry a token, and so
    has `logprobs` where the session asks for them.

    `finish` is set on the last one; `counters` are cumulative, `plan` is the round's.
    `audited`: what the full tier said, on its way to this commit, of tokens committed before.
    `why`: the reason of that plan, where the router chose it. `audit`: on the last commit of
    a VIA session, the figures of its audit. `stages`: what went before it since the commit
    before, where the request is timed.
    """

    tokens: tuple[int, ...]
    tiers: tuple[Tier, ...]
    counters: Counters
    plan: Plan
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    audited: tuple[AuditRow, ...] = ()
    audit: AuditFigures | None = None
    why: str = ""
    stages: tuple[StageTime, ...] = ()
