"""Laws of the documentation: its configs, requests and tables hold what the code knows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from actors.ingress.schema import ChatBody, CompletionBody, Extension, parse
from cluster.reference import reference
from tests.docs.pages import Page, commands, page, pages

PAGES = pages()
KEYS = re.findall(r"^\| `([^`]+)` \|", reference(), re.M)
SECTIONS = {key for key in KEYS if "." not in key}
KNOWN = [re.compile(re.escape(key).replace("NAME", "[^.]+") + "$") for key in KEYS]


def configs(tree: Any) -> Iterator[dict[str, Any]]:
    """The settings of ours in a YAML block: the `args` of an application, or sections alone."""
    if not isinstance(tree, dict):
        return
    apps = [app for app in tree.get("applications", ()) if isinstance(app, dict)]
    yield from (app["args"] for app in apps if "args" in app)
    if isinstance(tree.get("args"), dict):
        yield tree["args"]
    if set(tree) <= SECTIONS:
        yield tree


def unknown(tree: dict[str, Any], at: str = "") -> Iterator[str]:
    """The keys that the schema has not."""
    for name, value in tree.items():
        path = f"{at}.{name}" if at else str(name)
        if isinstance(value, dict) and any(key.startswith(f"{_named(path)}.") for key in KEYS):
            yield from unknown(value, path)
        elif not any(key.match(path) for key in KNOWN):
            yield path


def _named(path: str) -> str:
    return re.sub(r"^pools\.[^.]+", "pools.NAME", path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configs_have_no_key_that_there_is_not(page: Page) -> None:
    for block in page.blocks("yaml"):
        for config in configs(yaml.safe_load(block.text)):
            assert not list(unknown(config)), f"{page.name}:{block.line}"


def test_a_key_that_there_is_not_would_be_found() -> None:
    tree = {"pools": {"a": {"tiers": ["full"], "cards": 1}}, "model": {"path": "x", "size": 1}}
    assert list(unknown(tree)) == ["pools.a.cards", "model.size"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_bodies_of_requests_are_accepted(page: Page) -> None:
    for block in page.blocks("sh"):
        for words in commands(block.text):
            if words[0] == "curl" and "-d" in words:
                chat = any("/chat/" in word for word in words)
                body = words[words.index("-d") + 1].encode()
                parse(body, ChatBody) if chat else parse(body, CompletionBody)
    for block in page.blocks("python"):
        compile(block.text, f"{page.name}:{block.line}", "exec")
    for block in page.blocks("json"):
        if "…" not in block.text:
            text = block.text.strip()
            json.loads(text if text.startswith("{") else f"{{{text}}}")  # or a part of an object


@pytest.mark.parametrize("body", [ChatBody, CompletionBody, Extension])
def test_every_parameter_of_a_request_is_told(body: Any) -> None:
    told = " ".join(page("docs/api.md").spans())
    shapes = {"model", "stream", "messages", "prompt", "viaserve", "stream_options"}
    missing = {
        name
        for name in set(body.model_fields) - shapes
        if not re.search(rf"(?<!\w){name}(?!\w)", told)
    }
    assert not missing


def test_readme_and_measured_tell_the_same_figures() -> None:
    def figures(name: str) -> list[list[str]]:
        rows = re.findall(r"^\| `(?:off|auto|two_tier|three_tier|via)`.*$", page(name).text, re.M)
        return [re.findall(r"(?<![\w.])\d*\.\d+", row) for row in rows][:5]

    assert figures("README.md") == figures("docs/measured.md")
    assert all(figures("README.md"))
