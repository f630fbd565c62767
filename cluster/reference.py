"""The configuration reference, written from the schema: every key, its type, default, allowed
values and meaning. It knows JSON schemas, not our keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.config import Config
from cluster.config_file import HttpOptions

Schema = Mapping[str, Any]

HEAD = Path(__file__).with_suffix(".md")
"""What is written by hand: how the file is used, and what its sections are about."""

_NAMES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def reference() -> str:
    """The whole file."""
    parts = [HEAD.read_text("utf-8"), *_section("http", HttpOptions.model_json_schema(), {})]
    schema = Config.model_json_schema()
    parts += _section("", schema, schema["$defs"], meaning="All sections.")
    return "\n".join(parts)


def _section(path: str, schema: Schema, defs: Schema, meaning: str | None = None) -> Iterator[str]:
    """A section's own keys as a table, then the sections in it."""
    below: list[tuple[str, Schema]] = []
    yield f"## {f'`{path}`' if path else 'Sections'}\n"
    yield f"{_one_line(meaning or schema.get('description', ''))}\n"
    yield "| key | type | default | allowed | meaning |\n|---|---|---|---|---|"
    needed = schema.get("required", ())
    for name, told in schema["properties"].items():
        key = f"{path}.{name}" if path else name
        inner = _inner(key, told, defs)
        below += inner
        kind = f"section {', '.join(f'`{at}`' for at, _ in inner)}" if inner else _type(told, defs)
        default = _default(told, name in needed, bool(inner))
        cells = (f"`{key}`", kind, default, _allowed(told, defs), _one_line(_said(told, defs)))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""
    for at, found in below:
        yield from _section(at, found, defs)


def _inner(key: str, told: Schema, defs: Schema) -> list[tuple[str, Schema]]:
    """The sections that a key holds, with their paths."""
    found: list[tuple[str, Schema]] = []
    for way in _ways(told, defs):
        if "properties" in way:
            found.append((key, way))
        elif isinstance(more := way.get("additionalProperties"), Mapping):
            found += _inner(f"{key}.NAME", more, defs)
        elif isinstance(more := way.get("items"), Mapping):
            found += _inner(f"{key}.N", more, defs)
    return found


def _ways(told: Schema, defs: Schema) -> list[Schema]:
    """What a key may be, references followed."""
    ways: list[Schema] = []
    for way in told.get("anyOf", (told,)):
        ref = way.get("$ref")
        ways.append(way if ref is None else defs[ref.rpartition("/")[2]])
    return ways


def _type(told: Schema, defs: Schema) -> str:
    names = dict.fromkeys(_type_of(way, defs) for way in _ways(told, defs))
    return " or ".join(names)


def _type_of(way: Schema, defs: Schema) -> str:
    if "const" in way or "enum" in way:
        return "str"
    if way.get("type") == "array":
        return f"list of {_type(way['items'], defs)}"
    if isinstance(more := way.get("additionalProperties"), Mapping):
        return f"str to {_type(more, defs)}"
    kind = str(way.get("type", "any"))
    return _NAMES.get(kind, kind)


def _allowed(told: Schema, defs: Schema) -> str:
    parts: list[str] = []
    for way in _ways(told, defs):
        if "properties" in way:
            continue
        words = way.get("enum", [way["const"]] if "const" in way else [])
        parts += [f"`{word}`" for word in words]
        bounds = [f"{sign} {way[name]:g}" for name, sign in _BOUNDS.items() if name in way]
        if bounds:
            parts.append(", ".join(bounds))
        if "pattern" in way:
            parts.append(f"`{way['pattern']}`")
        if isinstance(more := way.get("items") or way.get("additionalProperties"), Mapping):
            parts += [allowed] if (allowed := _allowed(more, defs)) else []
    return ", ".join(dict.fromkeys(parts))


def _default(told: Schema, needed: bool, is_section: bool) -> str:
    if needed:
        return "must be given"
    if "default" not in told:
        return "empty"
    value = told["default"]
    if is_section and value:
        return "as below"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _said(told: Schema, defs: Schema) -> str:
    """Pydantic leaves out what the section says of itself in the same words."""
    return told.get("description") or _ways(told, defs)[0].get("description", "")


def _one_line(text: str) -> str:
    return " ".join(text.split())
