"""The page in a real browser without a window: it opens from the disk, filters, enlarges and takes decisions."""

from __future__ import annotations

import csv
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import PHANTOMS, write_phantom_page

from mask_rcnn.dataset.decisions import Decision, read_decisions, write_decisions
from mask_rcnn.results.page.films import PageFilm
from mask_rcnn.results.page.server import ReviewServer

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install -r requirements-dev.txt")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no Chromium with its driver: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PageFilm]]:
    """A page of six films, three of them for review, one with a name that would like to be a tag."""
    out = tmp_path_factory.mktemp("results")
    paths = sorted((PHANTOMS / "images").glob("*.png"))[:6]
    names = [f"ward/{path.name}" for path in paths]
    names[0] = "ward/<img src=x onerror=alert(1)>.png"
    return out, write_phantom_page(out, paths, names)


def wait(condition: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.05)
    return value


def cards(browser: Any) -> list[Any]:
    return browser.find_elements("css selector", "#sheet .film")


def text_of(browser: Any, name: str) -> str:
    return browser.find_element("id", name).text


def press(browser: Any, keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(keys).perform()


def open_page(browser: Any, address: str, count: int) -> None:
    browser.get(address)
    wait(lambda: len(cards(browser)) == count)


def shows_film(browser: Any) -> bool:
    return browser.execute_script("const p = document.getElementById('picture'); return p.complete && p.naturalWidth > 0")


def test_it_opens_filters_enlarges_and_decides_from_the_disk(
    browser: Any, out: tuple[Path, list[PageFilm]], downloads: Path
) -> None:
    folder, films = out
    open_page(browser, (folder / "report.html").as_uri(), 6)
    browser.execute_script("localStorage.clear()")
    open_page(browser, (folder / "report.html").as_uri(), 6)
    names = [card.find_element("css selector", "b").text for card in cards(browser)]
    worst_first = sorted(films, key=lambda film: film.agreement or 0)
    assert names == [film.file.split("/")[1] for film in worst_first], "what is for review, and least certain, is first"
    browser.execute_script("document.getElementById('sheet').scrollIntoView()")
    wait(lambda: browser.execute_script(
        "return [...document.querySelectorAll('#sheet img')].every((i) => i.complete && i.naturalWidth > 0)"))

    browser.execute_script("""
        const select = document.getElementById('by-status'); select.value = 'review';
        select.dispatchEvent(new Event('change'))""")
    assert len(cards(browser)) == 3 and text_of(browser, "count").startswith("3 of 6 films")
    press(browser, "/" + films[4].path.stem)
    assert len(cards(browser)) == 1
    browser.find_element("id", "search").clear()
    browser.find_element("id", "search").send_keys("no such film")
    assert cards(browser) == [] and text_of(browser, "count").startswith("0 of 6")
    browser.find_element("id", "search").clear()
    browser.find_element("id", "search").send_keys(" ")
    assert len(cards(browser)) == 3

    cards(browser)[0].send_keys("\n")
    wait(lambda: shows_film(browser))
    assert text_of(browser, "film-name") == worst_first[0].file
    assert "opinions on the lungs differ (Dice 0.94)" in text_of(browser, "film-reasons")
    assert "area_px" in text_of(browser, "lung-facts") and "image_id" in text_of(browser, "film-facts")
    width = browser.execute_script("return document.getElementById('picture').naturalWidth")
    viewbox = browser.find_element("id", "outlines").get_dom_attribute("viewBox").split()
    assert int(viewbox[2]) == width, "outlines lie on the film at its full size"

    def seen(kind: str) -> list[bool]:
        return [shape.is_displayed() for shape in browser.find_elements("css selector", f"#outlines .{kind}")]

    assert seen("mask") == [True, True] and seen("outline") == [True, True] and seen("member") == [False] * 4
    press(browser, "bmo")
    assert seen("mask") == [False, False] and seen("outline") == [False, False] and seen("member") == [True] * 4
    press(browser, "f")
    assert browser.find_element("id", "frame").size["width"] == width
    press(browser, "f")

    press(browser, "r")
    assert text_of(browser, "decided") == "rejected by you"
    press(browser, "21")
    assert text_of(browser, "decided") == "rejected by you: left lung wrong, right lung wrong"
    from selenium.webdriver.common.keys import Keys

    press(browser, Keys.ARROW_RIGHT)
    assert text_of(browser, "film-name") == worst_first[1].file and text_of(browser, "decided") == ""
    press(browser, "a")
    press(browser, Keys.ARROW_RIGHT + "au")
    press(browser, Keys.ESCAPE)
    assert [card.get_attribute("data-decision") for card in cards(browser)] == ["reject", "accept", ""]
    assert text_of(browser, "saved").startswith("2 decisions kept by this browser")

    open_page(browser, (folder / "report.html").as_uri(), 6)
    assert [card.get_attribute("data-decision") for card in cards(browser)][:3] == ["reject", "accept", ""], "kept"
    browser.find_element("id", "download").click()
    saved = wait(lambda: next(downloads.glob("decisions.csv"), None))
    with saved.open(newline="", encoding="utf-8") as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {str(film.image_id) for film in worst_first[:2]}
    assert rows[str(worst_first[0].image_id)]["wrong"] == "left_lung;right_lung"
    found = {item.image_id: item for item in read_decisions(saved)}
    assert found[worst_first[0].image_id].file == worst_first[0].file
    assert found[worst_first[1].image_id].decision == "accept"
    messages = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert messages == [], "no script fails, and the page's policy forbids nothing that it needs"


def test_decisions_of_the_file_are_shown(browser: Any, tmp_path: Path) -> None:
    paths = sorted((PHANTOMS / "images").glob("*.png"))[:2]
    write_decisions(tmp_path / "decisions.csv", [Decision(1001, "", "reject", ("mirrored",), "2026-01-01")])
    write_phantom_page(tmp_path, paths)
    open_page(browser, (tmp_path / "report.html").as_uri(), 2)
    assert [card.get_attribute("data-decision") for card in cards(browser)] == ["reject", ""]
    assert "rejected by you: mirrored" in cards(browser)[0].text


def test_a_served_page_saves_at_once(browser: Any, out: tuple[Path, list[PageFilm]]) -> None:
    folder, films = out
    server = ReviewServer(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        open_page(browser, server.address, 6)
        cards(browser)[0].click()
        wait(lambda: shows_film(browser))
        press(browser, "3")
        wait(lambda: read_decisions(folder / "decisions.csv"))
        (item,) = read_decisions(folder / "decisions.csv")
        assert (item.image_id, item.decision, item.wrong) == (films[-1].image_id, "reject", ("not_frontal",))
        open_page(browser, server.address, 6)
        assert [card.get_attribute("data-decision") for card in cards(browser)][:2] == ["reject", ""]
        cards(browser)[0].click()
        wait(lambda: shows_film(browser))
        press(browser, "u")
        wait(lambda: not read_decisions(folder / "decisions.csv"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        (folder / "decisions.csv").unlink(missing_ok=True)


def test_many_films_load_while_scrolling_and_are_paged(browser: Any, tmp_path: Path) -> None:
    write_phantom_page(tmp_path, [PHANTOMS / "images" / "phantom_0001.png"])
    index = tmp_path / "report_files" / "index.js"
    head, _, _ = index.read_text().partition('"id":')
    count = 2500
    lists = {
        "id": list(range(count)), "file": [f"film {k}.png" for k in range(count)], "status": ["accepted"] * count,
        "reasons": [[]] * count, "agreement": [0.9] * count, "risk": [None] * count, "source": [0] * count,
        "sources": ["ward"], "picture": [""] * count, "decisions": [],
    }  # fmt: skip
    index.write_text(head + json.dumps(lists)[1:] + ");")
    browser.get((tmp_path / "report.html").as_uri())
    wait(lambda: 0 < len(cards(browser)) < 1000)
    assert browser.find_element("css selector", ".place").text == "1 to 1,000 of 2,500"

    def scrolled() -> bool:
        browser.execute_script("document.getElementById('end').scrollIntoView()")
        return len(cards(browser)) == 1000

    wait(scrolled)
    for _ in range(2):
        browser.find_element("css selector", ".later").click()
    assert browser.find_element("css selector", ".place").text == "2,001 to 2,500 of 2,500"
    assert "film 2000.png" in cards(browser)[0].text
