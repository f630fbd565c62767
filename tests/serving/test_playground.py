"""The playground on a real server, in a real browser."""

from __future__ import annotations

import pytest

from tests.playground.browser import Page
from tests.serving.server import Server

ANSWER_S = 300.0


@pytest.mark.slow
def test_playground_shows_that_two_exact_modes_give_the_same_answer(browser, server: Server):
    page = Page(browser, server.url + "/")
    page.open_ready()
    page.one("#both").click()
    page.choose("#first-mode", "three_tier")
    page.fill("#sampling-max_tokens", "16")
    page.ask("Repeat this list twice: red, green, blue, red, green, blue.")
    assert page.until_ended(2, ANSWER_S) == ["done", "done"]
    page.until(lambda: page.one(".verdict").text)
    assert page.one(".verdict").get_attribute("data-kind") == "same"
    drafted, plain = page.all(".answer")
    assert drafted.find_elements("css selector", ".token.draft, .token.slim")
    assert not plain.find_elements("css selector", ".token.draft, .token.slim")
    for answer in (drafted, plain):
        assert answer.find_elements("css selector", ".waterfall .bar.full")
        assert "exact" in answer.text
    fleet = page.one("#fleet").text
    assert all(worker["pool"] in fleet for worker in server.ready()["workers"])
    assert page.one("#state").get_attribute("data-state") == "ok"
    assert page.complaints() == []
