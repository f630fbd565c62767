"""Laws of the documentation: what it points at exists."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import LOG, ROOT, Page, pages

PAGES = pages()
_FOLDERS = ("policies", "actors", "infra", "cluster", "config", "tests", "docs")
_PATH = re.compile(rf"^(?:{'|'.join(_FOLDERS)})/[\w./-]+(?:::\w+)?$")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_leads_somewhere(page: Page) -> None:
    broken: list[str] = []
    by_file = {(ROOT / one.name): one for one in PAGES}
    for is_picture, target in page.links():
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.folder / path).resolve() if path else ROOT / page.name
        if not file.exists() or (is_picture and not file.is_file()):
            broken.append(f"{target}: no such file")
        elif anchor and anchor not in by_file[file].anchors():
            broken.append(f"{target}: no such heading; there are {sorted(by_file[file].anchors())}")
    assert not broken, broken


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in LOG], ids=lambda page: page.name
)
def test_every_file_and_test_that_is_named_exists(page: Page) -> None:
    missing: list[str] = []
    for span in page.spans():
        if not _PATH.match(span):
            continue
        name, _, test = span.partition("::")
        file = ROOT / name
        defined = rf"^(?:async )?def {test}\("
        if not file.exists() or (test and not re.search(defined, file.read_text("utf-8"), re.M)):
            missing.append(span)
    assert not missing, missing


def test_the_index_lists_every_page() -> None:
    (index,) = (page for page in PAGES if page.name == "docs/README.md")
    listed = {target for _, target in index.links()}
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert there <= listed, there - listed


def test_every_law_names_a_test_that_checks_it() -> None:
    (page,) = (page for page in PAGES if page.name == "docs/algorithm.md")
    rows = re.findall(r"^\| (.+) \| (`.+) \| (.*) \|$", page.text, re.M)
    assert len(rows) > 30
    assert all("`tests/" in checked for _, _, checked in rows)
