"""Laws of the documentation: its commands exist with their options, its YAML is YAML."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import typer
import yaml

from cluster.__main__ import cli
from tests.docs.pages import ROOT, Page, commands, pages

PAGES = pages()
COMMANDS: dict[str, Any] = typer.main.get_command(cli).commands  # type: ignore[attr-defined]


def ids(page: Page) -> str:
    return page.name


def ours(words: list[str]) -> list[str] | None:
    """What stands behind `python -m cluster`, or None where the command is another one."""
    for i, word in enumerate(words):
        if word.endswith("python") and words[i + 1 : i + 3] == ["-m", "cluster"]:
            return words[i + 3 :]
    return None


def in_blocks(page: Page) -> Iterator[list[str]]:
    for block in page.blocks("sh", "bash", "console"):
        for words in commands(block.text):
            words = words[1:] if words[0] == "$" else words
            # `A=1 make serve`: the settings before a command are none of its words.
            while words and re.match(r"^[A-Z_]+=", words[0]):
                words = words[1:]
            if words:
                yield words


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_a_command_in_a_block_is_one_that_the_command_line_takes(page: Page) -> None:
    for words in in_blocks(page):
        args = ours(words)
        if args is None or "--help" in args or "COMMAND" in args:
            continue
        # Parsed, converted and checked, but not invoked.
        COMMANDS[args[0]].make_context(args[0], list(args[1:]))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_a_command_within_a_line_has_the_options_that_it_names(page: Page) -> None:
    for span in page.spans():
        args = ours(_words(span))
        if not args or not re.match(r"^[a-z]", args[0]):
            continue
        command = COMMANDS[args[0]]
        known = {name for param in command.params for name in param.opts + param.secondary_opts}
        named = {arg.partition("=")[0] for arg in args if arg.startswith("--")} - {"--help"}
        assert named <= known, (span, named - known)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_modules_and_tests_that_are_run_exist(page: Page) -> None:
    for words in [*in_blocks(page), *map(_words, page.spans())]:
        if "-m" not in words[:3] or not words[0].endswith("python"):
            continue
        at = words.index("-m") + 1
        if at == len(words) or words[at] == "cluster":
            continue
        if words[at] == "pytest":
            named = [word.partition("::")[0] for word in words[at + 1 :] if "/" in word]
            assert all((ROOT / name).exists() for name in named), words
        elif words[at].partition(".")[0] in ("tests", "infra", "cluster", "actors"):
            path = ROOT / words[at].replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), words


def _words(span: str) -> list[str]:
    try:
        return shlex.split(span) or [""]
    except ValueError:  # no command
        return [""]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make: apt-get install make")
@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_make_has_the_targets_that_are_named(page: Page) -> None:
    spans = [_words(span) for span in page.spans()]
    for words in [*in_blocks(page), *spans]:
        if words[0] != "make" or len(words) < 2 or not re.match(r"^[a-z-]+$", words[1]):
            continue
        told = subprocess.run(
            ["make", "-n", words[1]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_yaml_blocks_are_yaml(page: Page) -> None:
    for block in page.blocks("yaml", "yml"):
        assert yaml.safe_load(block.text) is not None, f"{page.name}:{block.line}"
