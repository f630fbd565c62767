"""`python -m actors.ingress.schema_probe`: compiles schemas for `structured`, bounded.

A line of JSON in, a line out: first the tokenizer, its end id and the bounds (CPU seconds a
schema, bytes of memory), then a schema a line, answered by the reason against it or "". A schema
past the bounds ends the process; its parent starts another.
"""

from __future__ import annotations

import json
import resource
import signal
import sys

from actors.engine.grammar import GrammarCompiler, GrammarError


def main() -> None:
    """Answer until standard input ends."""
    tokenizer_json, end_id, cpu_s, memory_bytes = json.loads(sys.stdin.readline())
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        compiler = GrammarCompiler(tokenizer_json, end_id)
    except ValueError as exc:
        _reply(str(exc))
        return
    _reply("")
    for line in sys.stdin:
        _reply(_reason_against(compiler, json.loads(line), cpu_s))


def _reason_against(compiler: GrammarCompiler, grammar: str, cpu_s: float) -> str:
    # Counts this process's CPU time; the signal's default action ends it, wherever it is.
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        compiler.matcher(grammar)
    except GrammarError as exc:
        return str(exc)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    return ""


def _reply(reason: str) -> None:
    print(json.dumps(reason), flush=True)


if __name__ == "__main__":
    main()
