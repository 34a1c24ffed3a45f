# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A report of five hundred images in a real browser: it opens, sorts, filters, shows an image, and asks no network."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glas_wsol.report import write_cohort, write_report
from glas_wsol.utils.csv_files import write_csv
from tests.report.conftest import case, inference

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars"),
    *("disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"),
)
COUNT, HOSTILE = 500, "<img src=x onerror=\"document.title='run'\">"

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser: install Debian's chromium and chromium-driver to run this test"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """500 images of ten files: 498 of both classes with probabilities of their own, one blank, one that failed."""
    folder = tmp_path_factory.mktemp("browser")
    items = [
        case(
            folder,
            HOSTILE if k == 7 else f"tile_{k}",
            0.5 + (0.45 if k % 2 else -0.45) * ((37 * k) % 500) / 500,
            file=f"{k % 10}.png",
            size=(24, 36),
            evidence=k != 250,
            truth=False,
            class_scores=True,
        )
        for k in range(COUNT - 1)
    ]
    out = inference(folder, items, overlays=False)
    write_csv(out / "failed.csv", [{"image": "gone.png", "stage": "read", "what": "no such file", "fix": "find it"}])
    return write_report(out)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}", "window-size=1300,900"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.command_executor.client_config.timeout = 600  # s: a busy machine is no failure
    driver.set_page_load_timeout(600)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page) -> webdriver.Chrome:
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)  # of what was before
    browser.get(page.as_uri())
    return browser


def find(driver, selector: str):
    return driver.find_element("css selector", selector)


def names(driver) -> list[str]:
    """Of the images shown, in their order."""
    script = "return [...document.querySelectorAll('#cases tbody:not([hidden]) .name')].map(e => e.textContent)"
    return driver.execute_script(script)


def column(driver, key: str) -> list[str]:
    script = """
        const heads = [...document.querySelectorAll('#cases thead th')];
        const place = heads.findIndex(th => th.dataset.key === arguments[0]);
        return [...document.querySelectorAll('#cases tbody:not([hidden]) .entry')].map(r => r.cells[place].textContent)
    """
    return driver.execute_script(script, key)


def put(driver, name: str, value: str) -> None:
    script = """
        const field = document.getElementById('filters').elements[arguments[0]];
        field.value = arguments[1];
        field.dispatchEvent(new Event('input', {bubbles: true}))
    """
    driver.execute_script(script, name, value)


def test_browser_opens_all_images_without_console_or_network(opened):
    assert opened.title == "Localization: out", "the hostile name ran nothing"
    assert len(names(opened)) == COUNT
    assert HOSTILE in names(opened)
    assert find(opened, "#shown").text == f"{COUNT} of {COUNT} images shown"
    find(opened, "#open-all").click()
    assert opened.execute_script("return document.querySelectorAll('.detail:not([hidden])').length") == COUNT
    opened.execute_script("scrollTo(0, document.body.scrollHeight)")
    assert opened.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert len([url for url in asked if url.startswith("file")]) == 1
    assert opened.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_the_policy_stops_what_is_put_in_later(opened):
    opened.execute_script("""
        const image = document.createElement('img'); image.src = 'x.png'; document.body.append(image);
        const script = document.createElement('script'); script.textContent = 'document.title = "run"';
        document.body.append(script);
        document.body.setAttribute('style', 'color: red')
    """)
    assert opened.title == "Localization: out"
    refused = " ".join(entry["message"] for entry in opened.get_log("browser"))
    for directive in ("img-src", "script-src", "style-src"):
        assert directive in refused


def test_a_column_sorts_both_ways_and_says_so(opened):
    head = find(opened, "th[data-key=probability]")
    head.find_element("css selector", "button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    shown = column(opened, "probability")
    known = [float(text.split()[0]) for text in shown if text]
    assert known == sorted(known)
    assert len(known) == COUNT - 2
    assert shown[-2:] == ["", ""], "what has none comes last"
    head.find_element("css selector", "button").click()
    assert head.get_attribute("aria-sort") == "descending"
    turned = column(opened, "probability")
    assert [float(text.split()[0]) for text in turned if text] == sorted(known, reverse=True)
    assert turned[-2:] == ["", ""]
    find(opened, "th[data-key=place] button").click()
    assert names(opened)[:3] == ["tile_0", "tile_1", "tile_2"]
    assert len(opened.find_elements("css selector", "[aria-sort]")) == 1


def test_filters_narrow_the_table_together(opened):
    put(opened, "class", "benign")
    benign = names(opened)
    assert set(column(opened, "class")) == {"benign"}
    put(opened, "probability-from", "90")
    sure = column(opened, "probability")
    assert 0 < len(sure) < len(benign)
    assert all(float(text.split()[0]) >= 90 for text in sure)
    put(opened, "name", "TILE_4")
    assert all(name.startswith("tile_4") for name in names(opened))
    assert find(opened, "#shown").text == f"{len(names(opened))} of {COUNT} images shown"
    find(opened, "#filters button[type=reset]").click()
    opened.execute_async_script("setTimeout(arguments[0], 50)")
    assert len(names(opened)) == COUNT
    put(opened, "state", "none")
    assert names(opened) == ["tile_250"]
    put(opened, "state", "failed")
    assert names(opened) == ["gone.png"]


def test_an_image_opens_by_keyboard_and_the_next_one_follows(opened):
    button = find(opened, "#image-3 .open")
    assert button.get_attribute("aria-expanded") == "false"
    button.send_keys("\ue007")  # Enter
    detail = find(opened, "#" + button.get_attribute("aria-controls"))
    assert detail.is_displayed()
    assert button.get_attribute("aria-expanded") == "true"
    assert "on this region alone" in detail.text
    put(opened, "name", "tile_1")  # tile_1, tile_10, ...: the next of those shown is image 11
    find(opened, "#image-2 .open").send_keys("\ue007")
    find(opened, "#image-2 .open").send_keys("\ue014")  # right
    assert not find(opened, "#detail-2").is_displayed()
    assert find(opened, "#detail-11").is_displayed()
    assert opened.switch_to.active_element.get_attribute("aria-controls") == "detail-11"
    opened.switch_to.active_element.send_keys("\ue012")  # left
    assert find(opened, "#detail-2").is_displayed()
    opened.switch_to.active_element.send_keys("\ue00c")  # Escape
    assert not find(opened, "#detail-2").is_displayed()


def test_the_parts_are_cut_out_along_the_mask(browser, page):
    browser.get("about:blank")
    browser.get(f"{page.as_uri()}#image-5")
    figures = browser.find_elements("css selector", "#detail-5 figure")
    whole, decidable, undecidable = (
        np.asarray(
            Image.open(io.BytesIO(f.find_element("css selector", "svg").screenshot_as_png)).convert("RGB"), float
        )
        for f in figures
    )
    height, width = whole.shape[:2]
    assert width / height == pytest.approx(36 / 24, rel=0.02)

    def saturation(picture: np.ndarray, rows: slice, columns: slice) -> float:
        part = picture[rows, columns]
        return float((part.max(axis=2) - part.min(axis=2)).mean())

    kept = slice(height // 8, 3 * height // 8), slice(width // 8, 3 * width // 8)  # the mask is the upper left quarter
    left = slice(5 * height // 8, 7 * height // 8), slice(5 * width // 8, 7 * width // 8)
    assert saturation(whole, *kept) > 30
    assert saturation(whole, *left) > 30
    assert saturation(decidable, *kept) > 30
    assert saturation(decidable, *left) < 15, "hatched grey"
    assert saturation(undecidable, *kept) < 15
    assert saturation(undecidable, *left) > 30
    border = decidable[height // 8 : 3 * height // 8, width // 2 - 8 : width // 2 + 8]
    assert ((border[..., 0] > 200) & (border[..., 1] > 180) & (border[..., 2] < 80)).any(axis=1).all(), "a yellow line"
    button = figures[1].find_element("css selector", ".enlarge")
    before = figures[1].size["width"]
    button.send_keys("\ue007")
    assert button.get_attribute("aria-pressed") == "true"
    assert figures[1].size["width"] > 1.5 * before


def test_without_its_script_every_image_is_open(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get("about:blank")
        browser.get(page.as_uri())
        assert find(browser, "#detail-3").is_displayed()
        assert not find(browser, "#filters").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


ROWS = 10_000


@pytest.fixture
def cohort(browser, page) -> webdriver.Chrome:
    """The same images and many that failed, as a table."""
    failed = [
        {"image": f"gone_{k}.png", "stage": "read", "what": "no such file", "fix": ""} for k in range(ROWS - COUNT + 1)
    ]
    write_csv(page.parent / "failed.csv", failed)
    browser.get(write_cohort(page.parent).as_uri())
    browser.get_log("browser")
    return browser


def test_table_of_a_cohort_draws_what_is_seen(cohort):
    def drawn() -> list[str]:
        return cohort.execute_script(
            "return [...document.querySelectorAll('#rows tr:not(.space) th')].map(e => e.title)"
        )

    def shown() -> str:
        return find(cohort, "#shown").text

    assert shown() == f"{ROWS} of {ROWS} images shown"
    assert drawn()[:8] == [*(f"tile_{k}" for k in range(7)), HOSTILE]
    assert len(drawn()) < 60
    cohort.execute_script("const pane = document.getElementById('window'); pane.scrollTop = pane.scrollHeight")
    cohort.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert drawn()[-1] == f"gone_{ROWS - COUNT}.png"
    heads = cohort.execute_script("return [...document.querySelectorAll('#cases thead th')].map(e => e.textContent)")
    assert heads[:3] == ["image", "class", "probability"]
    cohort.find_elements("css selector", ".sort")[2].click()
    put(cohort, "name", "TILE_1")
    put(cohort, "probability-from", "90")
    kept = [f"tile_{k}" for k in range(COUNT) if f"tile_{k}".startswith("tile_1")]
    assert set(drawn()) < set(kept)
    said = cohort.execute_script(
        "return [...document.querySelectorAll('#rows tr:not(.space)')].map(r => r.cells[2].textContent)"
    )
    values = [float(text.split()[0]) for text in said]
    assert values == sorted(values)
    assert min(values) >= 90
    assert cohort.execute_script("return document.querySelector('#rows img').naturalWidth") == 36
    find(cohort, "button[type=reset]").click()
    cohort.execute_async_script("setTimeout(arguments[0])")
    put(cohort, "state", "failed")
    assert shown() == f"{ROWS - COUNT + 1} of {ROWS} images shown"
    assert cohort.get_log("browser") == []
    assert cohort.title == "Cohort: out", "the hostile name ran nothing"
