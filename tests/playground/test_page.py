"""Laws of the playground, in a real browser against the ingress on written answers."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest
from selenium.webdriver.common.keys import Keys

from actors.ingress.app import create_app
from actors.ingress.errors import Overloaded, Unavailable
from tests.playground.backend import LOSSY_TEXT, TEXT
from tests.playground.browser import Page
from tests.playground.site import site

NASTY = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


def test_answer_is_the_text_with_a_tier_for_each_token(page: Page, backend, codec):
    page.ask("hello")
    assert page.until_ended(1) == ["done"]
    assert page.text(".text") == TEXT
    tokens = page.all(".text .token")
    assert len(tokens) == len(codec.encode(TEXT)) + 1
    tiers = [str(token.get_attribute("class")).split()[1] for token in tokens[:6]]
    assert tiers == ["draft", "slim", "full"] * 2
    assert page.complaints() == []


def test_figures_are_those_of_the_answer(page: Page, codec):
    page.ask("hello")
    page.until_ended(1)
    names = [node.text for node in page.all(".figures dt")]
    values = [node.text for node in page.all(".figures dd")]
    figures = dict(zip(names, values, strict=True))
    assert figures["Tokens"] == str(len(codec.encode(TEXT)) + 1)
    assert int(figures["Rounds"]) > 1
    assert figures["First token"].endswith("s")
    assert "exact" in page.one(".badges").text


def test_tiers_differ_by_underline_and_not_by_colour_alone(page: Page):
    styles = {
        tier: page.one(f".legend .{tier}").value_of_css_property("border-bottom-style")
        for tier in ("draft", "slim", "full")
    }
    assert len(set(styles.values())) == 3
    page.ask("hello")
    page.until_ended(1)
    page.one("#tint").click()
    token = page.one(".text .draft")
    assert token.value_of_css_property("border-bottom-color") == "rgba(0, 0, 0, 0)"


@pytest.mark.parametrize("who", ["user", "model"])
def test_no_text_is_ever_markup(page: Page, backend, codec, eos, who):
    if who == "model":
        backend.answer = lambda spec: [*codec.encode(NASTY), eos]
    title = page.driver.title
    page.ask(NASTY if who == "user" else "hello")
    page.until_ended(1)
    assert page.text(".question" if who == "user" else ".text") == (NASTY)
    assert not page.all(".turns img, .turns script, .turns b")
    assert page.driver.title == title
    assert page.complaints() == []


def test_enter_sends_and_shift_enter_does_not(page: Page, backend):
    prompt = page.one("#prompt")
    assert page.driver.switch_to.active_element == prompt
    prompt.send_keys("one", Keys.SHIFT + Keys.ENTER + Keys.NULL, "two")
    assert prompt.get_property("value") == "one\ntwo"
    assert backend.requests == []
    prompt.send_keys(Keys.ENTER)
    page.until_ended(1)
    assert page.text(".question") == "one\ntwo"
    assert prompt.get_property("value") == ""
    assert page.driver.switch_to.active_element == prompt


def test_an_empty_message_is_not_sent(page: Page, backend):
    page.ask("  ")
    assert backend.requests == []
    assert page.states() == []


def test_the_keyboards_place_does_not_go_with_a_button(page: Page):
    page.one("#prompt").send_keys("hello", Keys.TAB + Keys.TAB)
    assert page.driver.switch_to.active_element == page.one("#send")
    page.press(Keys.ENTER)
    page.until_ended(1)
    page.until(lambda: page.one("#send").is_displayed())
    assert page.driver.switch_to.active_element == page.one("#prompt")


@pytest.mark.parametrize("way", ["escape", "button"])
def test_stop_cancels_the_request_and_keeps_what_came(page: Page, backend, way):
    backend.hang_after = 3
    page.ask("hello")
    page.until(lambda: page.all(".text .token"))
    if way == "escape":
        page.press(Keys.ESCAPE)
    else:
        page.one("#stop").click()
    assert page.until_ended(1) == ["stopped"]
    page.until(lambda: backend.num_cancelled == 1)
    assert TEXT.startswith(page.text(".text"))
    assert page.one("#send").is_displayed()
    assert not page.one("#stop").is_displayed()


def test_a_conversation_goes_on(page: Page, backend, codec):
    page.ask("first")
    page.until_ended(1)
    page.ask("second")
    page.until_ended(2)
    prompt = codec.decode(list(backend.requests[-1].sessions[0].tokens))
    assert prompt.index("first") < prompt.index(TEXT) < prompt.index("second")
    page.one("#new").click()
    assert page.states() == []
    page.ask("third")
    page.until_ended(1)
    assert "first" not in codec.decode(list(backend.requests[-1].sessions[0].tokens))


@pytest.mark.parametrize(
    ("mode", "kind", "text"), [("off", "same", TEXT), ("via", "differ", LOSSY_TEXT)]
)
def test_side_by_side_shares_the_seed_and_says_whether_they_agree(
    page: Page, backend, mode, kind, text
):
    page.one("#both").click()
    page.choose("#second-mode", mode)
    page.ask("hello")
    assert page.until_ended(2) == ["done", "done"]
    page.until(lambda: page.one(".verdict").text)
    assert page.one(".verdict").get_attribute("data-kind") == kind
    bodies = page.all(".text")
    assert [body.text for body in bodies] == [TEXT, text]
    seeds = {request.sessions[0].sampling.seed for request in backend.requests}
    assert len(seeds) == 1
    left, right = (node.rect for node in page.all(".answer"))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    marked = page.all(".difference")
    assert len(marked) == (2 if kind == "differ" else 0)


def test_each_column_goes_on_with_its_own_answers(page: Page, backend, codec):
    page.one("#both").click()
    page.choose("#second-mode", "via")
    page.ask("first")
    page.until_ended(2)
    page.ask("second")
    page.until_ended(4)
    prompts = [codec.decode(list(r.sessions[0].tokens)) for r in backend.requests[2:]]
    assert sorted(LOSSY_TEXT in prompt for prompt in prompts) == [False, True]


def test_one_after_the_other_means_that(page: Page, backend):
    backend.hang_after = 2
    page.one("#both").click()
    page.one("#in-turn").click()
    page.ask("hello")
    page.until(lambda: page.all(".text .token"))
    assert page.states() == ["running", "waiting"]
    assert len(backend.requests) == 1
    page.press(Keys.ESCAPE)
    assert page.until_ended(2) == ["stopped", "stopped"]
    assert len(backend.requests) == 1


def test_settings_reach_the_request_and_empty_ones_do_not(page: Page, backend):
    page.choose("#first-mode", "via")
    page.fill("#first-theta_accept", "0.8")
    page.fill("#sampling-seed", "7")
    page.fill("#sampling-temperature", "0")
    page.fill("#sampling-max_tokens", "5")
    page.ask("hello")
    assert page.until_ended(1) == ["done"]
    [spec] = backend.requests[0].sessions
    assert (spec.sampling.seed, spec.max_tokens, spec.sampling.params.temperature) == (7, 5, 0)
    assert spec.plan.gate.theta_accept == 0.8
    assert spec.plan.gate.theta_escalate == 0.5
    assert "cut at max tokens" in page.one(".badges").text


def test_only_the_fields_of_the_mode_are_there(page: Page):
    page.choose("#first-mode", "off")
    assert not page.one("#first-gamma").is_displayed()
    page.choose("#first-mode", "cascade")
    assert page.one("#first-gamma").is_displayed()
    assert page.one("#first-alpha").is_displayed()
    assert not page.one("#first-theta_accept").is_displayed()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("#sampling-temperature", "3", "less than or equal to 2"),
        ("#sampling-top_p", "much", "valid number"),
        ("#first-gamma", "99", "from 1 to 16"),
    ],
)
def test_a_limit_is_told_beside_its_field(page: Page, backend, field, value, said):
    page.fill(field, value)
    page.ask("hello")
    assert page.until_ended(1) == ["failed"]
    assert page.one(field).get_attribute("aria-invalid") == "true"
    assert said in page.text(f"{field}-error")
    assert said in page.one(".trouble").text
    page.fill(field, "1")
    assert page.text(f"{field}-error") == ""
    page.one(".trouble button").click()
    assert page.until_ended(1) == ["done"]


def test_a_seed_that_a_browser_would_round_is_not_sent(page: Page, backend):
    page.fill("#sampling-seed", "9007199254740993")
    page.ask("hello")
    assert page.text("#sampling-seed-error")
    assert page.driver.switch_to.active_element == page.one("#sampling-seed")
    assert backend.requests == []
    assert page.one("#prompt").get_property("value") == "hello"


def test_a_full_server_says_when_to_come_back(page: Page, backend):
    backend.refusal = Overloaded(2.0)
    page.ask("hello")
    assert page.until_ended(1) == ["failed"]
    assert "429" in page.one(".trouble").text
    button = page.one(".trouble button")
    assert not button.is_enabled()
    assert button.text.startswith("Try again in")
    backend.refusal = None
    page.until(lambda: page.one(".trouble button").is_enabled())
    page.one(".trouble button").click()
    assert page.until_ended(1) == ["done"]


def test_a_failure_midway_is_told_and_what_came_is_kept(page: Page, backend):
    backend.failure, backend.fail_after = Unavailable("the large pool is gone"), 3
    page.ask("hello")
    assert page.until_ended(1) == ["failed"]
    assert "the large pool is gone" in page.one(".trouble").text
    assert page.all(".text .token")


def test_a_broken_connection_is_told(browser, settings, codec, backend):
    backend.hang_after = 3
    with site(create_app(settings, codec, backend)) as url:
        page = Page(browser, url)
        page.open_ready()
        page.ask("hello")
        page.until(lambda: page.all(".text .token"))
    assert page.until_ended(1) == ["failed"]
    assert "connection broke" in page.one(".trouble").text
    page.until(lambda: page.one("#state").get_attribute("data-state") == "unreachable")
    page.one(".trouble button").click()
    page.until(lambda: "cannot be reached" in page.one(".trouble").text)


def test_a_key_is_asked_for_and_kept_in_the_tab_only(browser, settings, codec, backend):
    locked = dataclasses.replace(settings, api_keys=("secret",))
    with site(create_app(locked, codec, backend)) as url:
        uses_a_key(Page(browser, url))


def uses_a_key(page: Page) -> None:
    page.open()
    page.until(lambda: page.one("#key-dialog").is_displayed())
    page.press("wrong", Keys.ENTER)
    page.until(lambda: not page.one("#key-dialog").is_displayed())
    page.ask("hello")
    assert page.until_ended(1) == ["failed"]
    page.until(lambda: page.one("#key-dialog").is_displayed())
    page.fill("#key", "secret")
    page.press(Keys.ENTER)
    page.until(lambda: page.one("#model").text == "org/tiny")
    page.one(".trouble button").click()
    assert page.until_ended(1) == ["done"]
    kept = page.driver.execute_script(
        "return [JSON.stringify(sessionStorage), localStorage.length]"
    )
    assert json.loads(kept[0]) == {"viaserve.key": "secret"}
    assert kept[1] == 0
    assert page.driver.get_cookies() == []
    assert page.complaints() == []


def test_a_key_that_no_header_carries_is_told_in_the_dialog(browser, settings, codec, backend):
    locked = dataclasses.replace(settings, api_keys=("secret",))
    with site(create_app(locked, codec, backend)) as url:
        page = Page(browser, url)
        page.open()
        page.until(lambda: page.one("#key-dialog").is_displayed())
        usual = page.text("#key-reason")
        page.press("ключ", Keys.ENTER)
        page.until(lambda: "cannot carry" in page.text("#key-reason"))
        page.press(Keys.ESCAPE)
        page.ask("hello")
        assert page.until_ended(1) == ["failed"]
        page.until(lambda: page.one("#key-dialog").is_displayed())
        assert page.text("#key-reason") == usual, "no key was given that could be wrong"
        page.fill("#key", "wrong")
        page.press(Keys.ENTER)
        page.one(".trouble button").click()
        page.until(lambda: "did not take" in page.text("#key-reason"))
        page.fill("#key", "secret")
        page.press(Keys.ENTER)
        page.until(lambda: page.one("#model").text)
        page.one("#key-button").click()
        assert page.text("#key-reason") == usual


def test_waterfall_has_a_bar_for_each_step_and_a_table(page: Page):
    page.ask("hello")
    page.until_ended(1)
    bars = page.all(".waterfall .bar")
    rounds = int(page.all(".figures dd")[3].text)
    assert len(bars) == 3 * rounds + 1
    lanes = [lane.text.split()[0] for lane in page.all(".lanes li")]
    assert lanes == ["queue", "draft", "slim", "full"]
    page.one(".as-table summary").click()
    page.until(lambda: len(page.all(".as-table tbody tr")) == len(bars))
    page.driver.execute_script("arguments[0].focus()", page.one(".waterfall svg"))
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.one(".told").text.startswith("Round 0, propose · draft on cheap 71bb02")


def test_fleet_shows_pools_workers_and_what_is_missing(page: Page, backend):
    page.until(lambda: page.all(".pool"))
    shown = page.one("#fleet").text
    for said in ("two_tier", "0 of 1 worker", "no node has <GPU>", "40 %", "5f3c9a", "slow"):
        assert said in shown
    assert page.one("#state").get_attribute("data-state") == "degraded"
    backend.status = backend.status | {"status": "ok"}
    page.until(lambda: page.one("#state").get_attribute("data-state") == "ok", 10)


def test_fleet_tells_tiers_in_the_order_of_a_round(page: Page, backend):
    pools = [backend.status["pools"][1] | {"tiers": ["draft", "full", "slim"]}]
    backend.status = backend.status | {"pools": pools}
    page.until(lambda: [tier.text for tier in page.all(".tier")] == ["draft", "slim", "full"], 10)


def test_fleet_of_a_server_that_is_gone_is_told_to_be_old(browser, settings, codec, backend):
    with site(create_app(settings, codec, backend)) as url:
        page = Page(browser, url)
        page.open_ready()
        page.until(lambda: page.all(".pool"))
        assert not page.all("#fleet .note")
    page.until(lambda: page.one("#state").get_attribute("data-state") == "unreachable")
    assert page.one("#fleet .note").is_displayed()


def test_a_worker_without_figures_is_not_a_server_out_of_reach(page: Page, backend):
    worker = {key: value for key, value in backend.status["workers"][0].items() if key != "probe"}
    backend.status = backend.status | {"status": "ok", "workers": [worker]}
    page.until(lambda: page.one("#state").get_attribute("data-state") == "ok", 10)
    assert page.all(".workers code")


@pytest.mark.parametrize("width", [320, 1280])
def test_the_end_of_an_answer_stays_in_sight_after_a_long_question(
    page: Page, backend, codec, eos, width
):
    backend.answer = lambda spec: [*codec.encode("word " * 150), eos]
    backend.hang_after = 100
    page.open_ready(width, 640)
    page.driver.execute_script("document.getElementById('settings-panel').open = true")
    page.fill("#sampling-max_tokens", "400")
    page.driver.execute_script("document.getElementById('settings-panel').open = false")
    page.fill_at_once("#prompt", "W" * 2000)
    page.press(Keys.ENTER)
    page.until(lambda: len(page.all(".text .token")) > 150)
    end, above = page.driver.execute_script(
        "const box = (one) => document.querySelector(one).getBoundingClientRect();"
        "return [box('.text').bottom, box('.composer').top]"
    )
    assert 0 < end <= above + 1
    page.press(Keys.ESCAPE)


@pytest.mark.parametrize("width", [320, 1280])
def test_long_names_and_notes_stay_in_the_window(browser, settings, codec, backend, width):
    backend.status = backend.status | {"why": "w" * 300}
    named = dataclasses.replace(settings, model_name="org/" + "m" * 150)
    with site(create_app(named, codec, backend)) as url:
        page = Page(browser, url)
        page.open_ready(width, 640)
        page.driver.execute_script("document.getElementById('fleet-panel').open = true")
        page.until(lambda: page.all(".pool"))
        assert page.overflow() <= 0
        side = "const side = document.querySelector('.side');"
        assert page.driver.execute_script(side + "return side.scrollWidth <= side.clientWidth")


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("width", [360, 900, 1280])
def test_page_is_never_wider_than_its_window(page: Page, width, both):
    page.open_ready(width, 740)
    if width < 900:
        page.one("#settings-panel summary").click()
        page.one("#fleet-panel summary").click()
    if both:
        page.one("#both").click()
    page.choose("#first-mode", "via")
    page.fill("#sampling-temperature", "3")
    page.ask("W" * 400)
    page.until_ended(2 if both else 1)
    assert page.overflow() <= 0
    page.fill("#sampling-temperature", "1")
    page.ask("W" * 400)
    page.until_ended(4 if both else 2)
    assert page.overflow() <= 0
    assert page.complaints() == []


def test_every_control_has_a_name_and_can_be_reached_by_keyboard(page: Page):
    page.one("#both").click()
    unnamed = page.driver.execute_script(
        "return [...document.querySelectorAll('input, select, textarea, button')]"
        ".filter(e => e.checkVisibility() && !e.textContent.trim() && !e.labels?.length)"
        ".map(e => e.outerHTML)"
    )
    assert unnamed == []
    page.driver.execute_script("document.querySelector('.skip').focus()")
    reached, deadline = [], time.monotonic() + 20
    while "prompt" not in reached and time.monotonic() < deadline:
        page.press(Keys.TAB)
        reached.append(page.driver.switch_to.active_element.get_attribute("id"))
    wanted = ["first-mode", "both", "in-turn", "second-mode", "sampling-seed", "tint", "prompt"]
    assert [name for name in reached if name in wanted] == wanted


def test_answers_are_told_to_screen_readers_when_they_are_complete(page: Page, backend):
    backend.hang_after = 2
    page.ask("hello")
    page.until(lambda: page.all(".text .token"))
    body = page.one(".text")
    assert body.get_attribute("aria-live") == "polite"
    assert body.get_attribute("aria-busy") == "true"
    page.press(Keys.ESCAPE)
    page.until_ended(1)
    assert body.get_attribute("aria-busy") == "false"
