"""`response_format` to the grammar of a session, and whether the grammar can be served.

A schema from outside is compiled first in a process of its own (`schema_probe`) with a bound on
its CPU time and memory: the engine's own limits do not bound everything, an intersection of some
forty patterns takes minutes. What passes there costs a worker no more than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from actors.ingress.errors import invalid
from actors.ingress.schema import ResponseFormat
from actors.ingress.settings import IngressSettings
from actors.ingress.text import TextCodec

_ANY_OBJECT = '{"type":"object"}'
_PARAM = "response_format.json_schema.schema"
_MAX_KNOWN = 256
_COMPILE_CPU_S = 0.5
_COMPILE_MEMORY_BYTES = 2 << 30
_TOO_COMPLEX = f"it takes more than {_COMPILE_CPU_S:g} s to compile; make it simpler"


def grammar_of(asked: ResponseFormat | None, settings: IngressSettings) -> str:
    """The canonical text of the schema that the answer is held to; "" for none.

    Keys keep their order: properties are written in the order of the schema. Raises ApiError 400
    where the schema is too large or too deep.
    """
    if asked is None or asked.type == "text":
        return ""
    if asked.json_schema is None:
        return _ANY_OBJECT
    schema = asked.json_schema.definition
    if _is_deeper(schema, settings.max_schema_depth):
        message = f"'{_PARAM}' is nested deeper than {settings.max_schema_depth} levels."
        raise invalid(message, _PARAM)
    text = json.dumps(schema, separators=(",", ":"))
    if len(text) > settings.max_schema_chars:
        message = f"'{_PARAM}' has more than {settings.max_schema_chars} characters."
        raise invalid(message, _PARAM)
    return text


def _is_deeper(schema: Any, levels: int) -> bool:
    layer = [schema]
    for _ in range(levels):
        layer = [
            child
            for value in layer
            if isinstance(value, (dict, list))
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not layer:
            return False
    return True


class SchemaGate:
    """Says of each grammar whether it can be served; asks the probe once for each."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._known: OrderedDict[str, str] = OrderedDict({_ANY_OBJECT: ""})
        self._probe: subprocess.Popen[bytes] | None = None
        # One thread: the probe is asked one thing at a time, and requests that wait for it hold
        # no thread that others need.
        self._thread = ThreadPoolExecutor(1, "schema-gate")

    async def check(self, grammar: str) -> None:
        """Raises ApiError 400 with what is wrong with the schema."""
        if grammar in self._known:
            self._known.move_to_end(grammar)
            reason = self._known[grammar]
        else:
            loop = asyncio.get_running_loop()
            reason = await loop.run_in_executor(self._thread, self._ask, grammar)
            self._known[grammar] = reason
            while len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        if reason:
            message = f"'{_PARAM}' is not supported: {reason}."
            raise invalid(message, _PARAM, "invalid_json_schema")

    def close(self) -> None:
        """End the probe; it would also end with this process."""
        self._thread.shutdown()
        self._end_probe()

    def _ask(self, grammar: str) -> str:
        """Why the grammar cannot be served; "" if it can."""
        if self._probe is None or self._probe.poll() is not None:
            self._end_probe()
            self._start_probe()
        assert self._probe is not None
        try:
            return _exchange(self._probe, grammar)
        except (EOFError, OSError):
            self._end_probe()
            return _TOO_COMPLEX

    def _start_probe(self) -> None:
        paths = {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
        self._probe = subprocess.Popen(
            [sys.executable, "-m", "actors.ingress.schema_probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | paths,
        )
        bounds = (_COMPILE_CPU_S, _COMPILE_MEMORY_BYTES)
        if reason := _exchange(self._probe, (*self._codec.serialised(), *bounds)):
            self._end_probe()
            message = f"This model's tokenizer cannot follow a schema: {reason}."
            raise invalid(message, "response_format", "unsupported_parameter")

    def _end_probe(self) -> None:
        if self._probe is not None:
            self._probe.kill()
            with contextlib.suppress(OSError), self._probe:  # closes its pipes and waits for it
                pass
            self._probe = None


def _exchange(probe: subprocess.Popen[bytes], value: Any) -> Any:
    """Send one line of JSON, read one back. Raises EOFError if the probe ended instead."""
    assert probe.stdin is not None
    assert probe.stdout is not None
    probe.stdin.write(json.dumps(value).encode() + b"\n")
    probe.stdin.flush()
    line = probe.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return json.loads(line)
