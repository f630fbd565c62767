"""What to measure: the options of a run and its prompts. Knows no HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GENERATE = "generate"  # the mode name of the in-process baseline
DEFAULT = "default"  # the mode name that sends no extension: for any OpenAI-compatible server


class BenchError(RuntimeError):
    """The bench cannot run; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """A run. Every mode gets the same prompts with the same seed, at every concurrency.

    `random_plan` draws gamma and block anew for each request, from 1 to `gamma` and `block`
    (where given, else to 8 and 16), by a generator seeded with the request. `waves` is how
    many times the concurrency a chunk of prompts holds: more waves, less time lost to the
    slowest of a chunk, coarser interleaving. `model` empty takes the server's first.
    `baseline_generate` is a model directory for `transformers.generate` in a child process,
    with `threads` threads (none: torch's own choice). `extensions`: what the requests of a mode
    carry in the server's extension where that is more than, or other than, the mode's name.
    """

    prompts: Path
    url: str = "http://127.0.0.1:8000"
    model: str = ""
    modes: tuple[str, ...] = ("off", "auto")
    concurrency: tuple[int, ...] = (1,)
    max_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    gamma: int | None = None
    block: int | None = None
    random_plan: bool = False
    limit: int | None = None
    rounds: int = 1
    waves: int = 1
    warmup: int = 1
    timeout_s: float = 600.0
    api_key: str = ""
    ignore_eos: bool = False
    require_identical: bool = False
    baseline_generate: Path | None = None
    baseline_dtype: str = "bfloat16"
    threads: int | None = None
    extensions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises BenchError for values that no run can have."""
        if not all(self.modes or [""]) or len(set(self.modes)) < len(self.modes):
            raise BenchError(f"modes must be given, each once: {','.join(self.modes)}")
        if GENERATE in self.modes:
            raise BenchError(f"mode {GENERATE} comes with --baseline-generate MODEL_DIR")
        counts = (*self.concurrency, self.max_tokens, self.rounds, self.waves)
        if not self.concurrency or min(counts) < 1:
            raise BenchError("concurrency, max tokens, rounds and waves must be at least 1")
        if self.limit is not None and self.limit < 1:
            raise BenchError("the limit of prompts must be at least 1")
        if self.warmup < 0:
            raise BenchError("warmup must be at least 0")
        if not 0 < self.timeout_s < math.inf:
            raise BenchError(f"the timeout must be a number of seconds above 0: {self.timeout_s}")
        if not 0 <= self.temperature < math.inf:
            raise BenchError(f"the temperature must be a number from 0 up: {self.temperature}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One user message."""

    id: str
    category: str
    text: str


def load_prompts(path: Path, limit: int | None = None) -> tuple[Prompt, ...]:
    """The first turn of each line; with `limit`, that many, spread evenly over the file.

    Raises BenchError with the line number where a line is not a prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"cannot read the prompts: {error}") from error
    found = [_prompt(path, n, line) for n, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise BenchError(f"no prompts in {path}")
    count = min(limit or len(found), len(found))
    return tuple(found[i * len(found) // count] for i in range(count))


def _prompt(path: Path, number: int, line: str) -> Prompt:
    try:
        fields = json.loads(line)
        text = fields["turns"][0]
        if not isinstance(text, str):
            raise TypeError("turns[0] is not text")
        return Prompt(str(fields.get("id", number)), str(fields.get("category", "")), text)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise BenchError(f"{path}:{number}: not a prompt: {error!r}") from error
