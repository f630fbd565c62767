"""README's and the pages' own requests, sent to a running server as they stand there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.docs.pages import Block, commands, pages
from tests.serving.server import ROOT, Server

HERE = "http://127.0.0.1:8000"
LIMIT_S = 300.0
BLOCKS = [(page, block) for page in pages() for block in page.blocks("sh", "python")]
CURL = [
    pytest.param(words, id=f"{page.name}:{block.line}")
    for page, block in BLOCKS
    if block.language == "sh" and f"{HERE}/v1/" in block.text
    for words in commands(block.text)
    # A request that is only timed throws its answer away.
    if words[0] == "curl" and "-o" not in words
]
PYTHON = [
    pytest.param(block, id=f"{page.name}:{block.line}")
    for page, block in BLOCKS
    if block.language == "python" and HERE in block.text
]


def test_there_are_requests_in_readme() -> None:
    assert CURL
    assert PYTHON


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl: apt-get install curl")
@pytest.mark.parametrize("words", CURL)
def test_curl_gets_an_answer(server: Server, words: list[str]) -> None:
    here = [word.replace(HERE, server.url) for word in words]
    told = _run([here[0], "--silent", "--show-error", "--fail-with-body", *here[1:]])
    answer = json.loads(told)
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    asked = json.loads(words[words.index("-d") + 1])
    assert answer["viaserve"]["mode"] == asked["viaserve"]["mode"]
    if "capital of France" in told + words[-1]:
        assert "Paris" in answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("block", PYTHON)
def test_python_prints_an_answer(server: Server, block: Block) -> None:
    assert _run([sys.executable, "-c", block.text.replace(HERE, server.url)]).strip()


def _run(words: list[str]) -> str:
    told = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout
