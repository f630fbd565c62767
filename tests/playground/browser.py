"""Debian's Chromium, without a window, and the page as a user meets it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
MISSING = f"{CHROMIUM} or {DRIVER} is not there: apt-get install chromium chromium-driver"
WAIT_S = 60.0


def is_installed() -> bool:
    """Whether there is a browser to test with."""
    return CHROMIUM.exists() and DRIVER.exists()


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser of its own, with an empty profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=str(DRIVER))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """The playground in a browser."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Afresh: nothing that was kept, nothing in the log, the model known."""
        driver = self.driver
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        driver.get_log("browser")
        driver.get(self.url)
        if driver.execute_script("return sessionStorage.length"):
            driver.execute_script("sessionStorage.clear()")
            driver.get(self.url)
        self.until(lambda: self.one("#state").text or self.one("#key-dialog").is_displayed())

    def open_ready(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Until the page knows the model's name."""
        self.open(width, height, dark=dark)
        self.until(lambda: self.one("#model").text)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """As it stands in the document, with its blanks."""
        return self.driver.execute_script("return arguments[0].textContent", self.one(selector))

    def until(self, true: Callable[[], Any], wait_s: float = WAIT_S) -> Any:
        # The page may redraw what is just being read.
        wait = WebDriverWait(self.driver, wait_s, 0.05, [StaleElementReferenceException])
        return wait.until(lambda _: true())

    def choose(self, selector: str, value: str) -> None:
        """In a select."""
        self.one(f"{selector} option[value='{value}']").click()

    def fill(self, selector: str, value: str) -> None:
        field = self.one(selector)
        field.clear()
        field.send_keys(value)

    def fill_at_once(self, selector: str, value: str) -> None:
        """As by pasting: much text takes no time."""
        script = "arguments[0].value = arguments[1]; arguments[0].focus()"
        self.driver.execute_script(script, self.one(selector), value)

    def ask(self, prompt: str) -> None:
        """Type it and press Enter."""
        self.one("#prompt").send_keys(prompt, Keys.ENTER)

    def states(self) -> list[str]:
        """Of all answers."""
        return [str(node.get_attribute("data-state")) for node in self.all(".answer")]

    def until_ended(self, number: int, wait_s: float = WAIT_S) -> list[str]:
        """Wait for so many answers to end; how they did."""
        over = {"done", "failed", "stopped"}
        self.until(lambda: len(self.states()) == number and set(self.states()) <= over, wait_s)
        return self.states()

    def press(self, *keys: str) -> None:
        """Wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def overflow(self) -> int:
        """Pixels that the page is wider than its window."""
        script = "return document.documentElement.scrollWidth - window.innerWidth"
        return self.driver.execute_script(script)

    def complaints(self) -> list[str]:
        """What the console has, but for answers that are refusals."""
        log = self.driver.get_log("browser")
        return [entry["message"] for entry in log if entry["source"] != "network"]
