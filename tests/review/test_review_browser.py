# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, by keyboard: open, filter, move a corner, threshold, undo, accept, reload."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from glas_wsol.review.serve import serve
from tests.review.conftest import results

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no browser: install Debian's chromium and chromium-driver to run this test"
    ),
]


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[tuple[str, Path]]:
    """The address that the command prints, and the results that it shows."""
    out, lines, servers = results(tmp_path), [], []

    class Server(uvicorn.Server):
        def run(self, sockets=None):
            servers.append(self)
            super().run(sockets)

    monkeypatch.setattr(uvicorn, "Server", Server)
    thread = threading.Thread(target=serve, args=(out, lambda folder, n: []), kwargs={"say": lines.append})
    thread.start()
    try:
        while not servers:
            thread.join(0.05)
        yield lines[-1].split()[1], out
    finally:
        servers[0].should_exit = True
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,900", "--no-first-run"):
        options.add_argument(word)
    options.add_argument("--disable-background-networking")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    try:
        yield driver
    finally:
        driver.quit()


def text(driver: webdriver.Chrome, query: str) -> str:
    return driver.find_element("css selector", query).text


def press(driver: webdriver.Chrome, *keys: str) -> None:
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def wait(driver: webdriver.Chrome, what: str) -> None:
    WebDriverWait(driver, 60).until(lambda _: what in text(driver, "#saved"), what)


def test_corner_is_moved_saved_undone_and_accepted_by_keyboard(served, browser):
    url, out = served
    browser.get(url)
    wait(browser, "nothing changed")
    assert browser.find_elements("css selector", ".row b")[1].text == "<script>alert(1)<|script>"
    saved = out / "corrections" / "in_work" / "plain.geojson"
    press(browser, "n", "c", "\ue014")  # right
    wait(browser, "in work")
    moved = json.loads(saved.read_text())["features"]
    press(browser, "\ue00c", "\ue00c", "]")  # Escape; all outlines at a higher threshold
    WebDriverWait(browser, 30).until(lambda _: json.loads(saved.read_text())["features"] != moved)
    press(browser, "u", "u")
    wait(browser, "in work")
    press(browser, "a")
    wait(browser, "accepted")
    collection = json.loads((out / "corrections" / "plain.geojson").read_text())
    assert not saved.exists()
    assert len(collection["features"]) == len(moved) == 2
    browser.refresh()
    wait(browser, "accepted")
    assert "case=plain" in browser.current_url
    severe = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert severe == []
    browser.delete_all_cookies()
    browser.get(url)
    assert "was used already" in text(browser, "body")
