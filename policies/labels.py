"""Ray's label selectors: which nodes a selector takes.

A value stands for itself, `in(a,b)` for any of them, `!` before either for all others, nodes
without the label included (docs.ray.io, "Use labels to control scheduling").
"""

from __future__ import annotations

from collections.abc import Mapping


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels is taken; every key has to agree."""
    return all(_agrees(value, labels.get(key)) for key, value in selector.items())


def _agrees(value: str, label: str | None) -> bool:
    negated = value.startswith("!")
    named = value.removeprefix("!")
    if named.startswith("in(") and named.endswith(")"):
        allowed = {part.strip() for part in named[3:-1].split(",")}
    else:
        allowed = {named}
    return (label in allowed) != negated
