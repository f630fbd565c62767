"""Pictures of the page for the documentation: `python -m tests.playground.shots URL`.

They show what that server answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.playground.browser import Page, chromium

ROOT = Path(__file__).resolve().parents[2]
ANSWER_S = 240.0
LIST = "Repeat this list twice: red, green, blue, red, green, blue."
SEA = "Write two sentences about the sea."


def take(page: Page, folder: Path, name: str) -> None:
    """The window as it is, from the top of the conversation."""
    page.driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.driver.save_screenshot(str(folder / f"playground-{name}.png"))


def pick_bar(page: Page) -> None:
    """Light up a round in the middle of the first waterfall."""
    bars = page.all(".answer:first-child .waterfall .bar.full")
    page.driver.execute_script(
        "arguments[0].dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))",
        bars[len(bars) // 2].find_element("css selector", "rect"),
    )


def side_by_side(page: Page, folder: Path) -> None:
    """Two exact modes, one after the other."""
    page.open_ready(1440, 900)
    page.one("#both").click()
    page.one("#in-turn").click()
    page.choose("#first-mode", "three_tier")
    page.fill("#sampling-max_tokens", "48")
    page.fill("#sampling-seed", "7")
    page.ask(LIST)
    page.until_ended(2, ANSWER_S)
    pick_bar(page)
    take(page, folder, "side-by-side")


def single(page: Page, folder: Path) -> None:
    """One answer, dark."""
    page.open_ready(1280, 800, dark=True)
    page.fill("#sampling-max_tokens", "64")
    page.fill("#sampling-seed", "7")
    page.ask(SEA)
    page.until_ended(1, ANSWER_S)
    pick_bar(page)
    take(page, folder, "single")


def narrow(page: Page, folder: Path) -> None:
    """A telephone."""
    page.open_ready(360, 740)
    page.one("#settings-panel summary").click()
    page.choose("#first-mode", "via")
    page.fill("#sampling-max_tokens", "40")
    page.fill("#sampling-seed", "7")
    page.one("#settings-panel summary").click()
    page.ask(SEA)
    page.until_ended(1, ANSWER_S)
    take(page, folder, "narrow")


def degraded(page: Page, folder: Path) -> None:
    """Of a server that misses a pool: it answers, and says what is not there."""
    page.open_ready(1280, 800)
    page.until(lambda: page.one("#state").get_attribute("data-state") == "degraded")
    page.fill("#sampling-max_tokens", "40")
    page.fill("#sampling-seed", "7")
    page.ask(SEA)
    page.until_ended(1, ANSWER_S)
    take(page, folder, "degraded")


PICTURES = (side_by_side, single, narrow, degraded)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="a running server's; `degraded` wants one without a pool")
    names = [picture.__name__ for picture in PICTURES]
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--only", choices=names, nargs="+", default=names[:-1])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with chromium() as driver:
        page = Page(driver, options.url.rstrip("/") + "/")
        for picture in PICTURES:
            if picture.__name__ in options.only:
                picture(page, options.folder)


if __name__ == "__main__":
    main()
