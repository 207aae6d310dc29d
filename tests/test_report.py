"""The page to look at: whole in itself, safe against any file name, and right in what it draws and counts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from PIL import Image
from stand_in import STANDS_IN, draw_film, write_weights

from create_dataset.assemble import JudgedFilm
from create_dataset.command import main
from create_dataset.report import groups_of_copies
from create_dataset.sources import Source
from mask_rcnn.checks.quality import ACCEPTED, REJECTED, REVIEW
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.results.drawing import LUNG_COLOURS
from mask_rcnn.results.names import PAGE, PAGE_FILES
from mask_rcnn.results.page.charts import HEIGHT, WIDTH, Bar, histogram, strip, summary
from mask_rcnn.results.page.films import PageFilm, by_risk, kind_of_reason
from mask_rcnn.results.page.pictures import SIDE, is_shown_by_browsers, thumbnail
from mask_rcnn.results.page.tracing import trace

EVIL = "<img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "rect", "input"}


class Page(HTMLParser):
    """What a browser would make of the page; fails on a tag that is not closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on films and folders of hostile names, a film twice, and files that are none."""
    root = tmp_path_factory.mktemp("report")
    films = root / "src" / "A & B" / "train" / '"><b>class'
    for name in (f"{EVIL}.png", "plain.png", "<script>1.png"):
        draw_film(films / name)
    (films / "again.png").write_bytes((films / "plain.png").read_bytes())
    draw_film(root / "src" / "other" / "wide.png", height=70, width=100)
    (films / f"{EVIL} torn.png").write_bytes(b"no film")
    (films / "empty.png").touch()
    weights = write_weights(root / "dark.weights.h5")
    with pytest.MonkeyPatch.context() as patch:
        for replacement in STANDS_IN:
            patch.setattr(*replacement)
        (empty := root / "a <b>folder</b> without films").mkdir(parents=True)
        sources = [str(root / "src"), str(empty)]
        assert main(["--src", *sources, "--out", str(root / "out"), "--unet", str(weights)]) == 0
    return root / "out"


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / PAGE).read_text(encoding="utf-8"))


def data(out: Path, name: str) -> Any:
    """What a script of the page's files hands over."""
    script = (out / PAGE_FILES / name).read_bytes().decode("ascii")
    assert "<" not in script, "no name ends the script"
    call, _, content = script.rstrip().removesuffix(");").partition("(")
    assert call in ("lungs.index", "lungs.details")
    return json.loads(content if call == "lungs.index" else content.partition(",")[2])


def test_nothing_is_loaded_from_elsewhere(page: Page, written: Path) -> None:
    tags = Counter(tag for tag, _ in page.tags)
    assert not tags.keys() & {"link", "iframe", "object", "embed", "base", "form", "b2"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "srcset", "data", "action"):
            assert re.match(r"report_files/[\w./-]+$|#", attributes.get(name) or "#"), (tag, attributes)
    (policy,) = [attributes["content"] or "" for _, attributes in page.tags if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'") and "http" not in policy and "unsafe-eval" not in policy
    html = (written / PAGE).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy and tags["script"] == 2, "no other script than the page's own runs"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html), "no address of the network"
    assert "innerHTML" not in script and "url(" not in html


def test_names_are_shown_as_they_are(page: Page, written: Path) -> None:
    for name in (f"{EVIL} torn.png", "A & B", '"><b>class'):
        assert name in page.text, name
    files = data(written, "index.js")["file"]
    assert len(files) == 5 and {f"{EVIL}.png", "<script>1.png"} <= {name.rpartition("/")[2] for name in files}
    assert len([tag for tag, _ in page.tags if tag == "style"]) == 1


def test_every_film_has_its_data_and_pictures(written: Path) -> None:
    index = data(written, "index.js")
    details = data(written, "details/0.js")
    assert [film["id"] for film in details] == index["id"]
    for k, film in enumerate(details):
        with Image.open(written / PAGE_FILES / "thumbnails" / index["picture"][k]) as image:
            assert image.format == "JPEG" and max(image.size) <= SIDE
        with Image.open(written / unquote(film["film"])) as image:
            assert image.size == (film["width"], film["height"]), "the film itself, wherever it lies"
        assert {"image_id", "likeness"} <= {name for name, _ in film["facts"]}
        for polygons in film["lungs"].values():
            for polygon in polygons:
                assert len(polygon) >= 6 and max(polygon[::2]) < film["width"] and max(polygon[1::2]) < film["height"]


def test_a_reader_without_sight_is_told(page: Page) -> None:
    images = [attributes for tag, attributes in page.tags if tag == "img" and attributes.get("id") != "picture"]
    assert len(images) == 2, "the copies"
    assert all("lungs outlined" in (attributes["alt"] or "") for attributes in images)
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert drawings and all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in drawings)
    assert dict(page.tags)["html"]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


def test_every_link_leads_somewhere(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(set(ids)) == len(ids)
    assert len(links) == 5 and {(link or "").removeprefix("#") for link in links} <= set(ids)


def test_the_counts_are_told(page: Page) -> None:
    assert "Lungs found on 5 chest films" in page.text
    assert "1 copy of other films" in page.text and "1 group of 2 films" in page.text
    assert "a <b>folder</b> without films: holds no film" in page.text
    assert "is no image: 1 file" in page.text and "the file is empty: 1 file" in page.text
    assert "quality.min_agreement" in page.text and "tensorflow" in page.text


def test_lungs_are_outlined_in_their_colours() -> None:
    film = np.full((600, 480), 180, np.uint8)
    lungs = {category: np.zeros(film.shape, bool) for category in (LEFT_LUNG, RIGHT_LUNG)}
    lungs[LEFT_LUNG][100:500, 300:420] = True
    lungs[RIGHT_LUNG][100:500, 60:180] = True
    picture = thumbnail(film, lungs).astype(int)
    assert picture.shape == (SIDE, 192, 3)
    scale = SIDE / 600
    for category, column in ((LEFT_LUNG, 300), (LEFT_LUNG, 419), (RIGHT_LUNG, 60), (RIGHT_LUNG, 179)):
        edge = picture[SIDE // 2, round(column * scale) - 1 : round(column * scale) + 2]
        assert abs(edge - LUNG_COLOURS[category]).sum(1).min() < 30, category
    inside = picture[SIDE // 2, round(360 * scale)]
    assert (inside == 180).all(), "what is judged is not painted over"


@pytest.mark.parametrize(("name", "mode", "shown"), [
    ("a.png", "L", True), ("a.jpg", "RGB", True), ("a.webp", "RGB", True), ("deep.png", "I;16", False),
    ("a.tiff", "L", False), ("cmyk.jpg", "CMYK", False),
])  # fmt: skip
def test_what_browsers_show(name: str, mode: str, shown: bool, tmp_path: Path) -> None:
    Image.new(mode, (40, 40)).save(tmp_path / name)
    assert is_shown_by_browsers(tmp_path / name) is shown
    assert not is_shown_by_browsers(tmp_path / "gone.png")


@pytest.mark.parametrize("side", [100, 3000])
def test_an_outline_lies_on_its_mask(side: int) -> None:
    rows, columns = np.ogrid[:side, :side]
    mask = ((rows - 0.5 * side) / 0.4) ** 2 + ((columns - 0.4 * side) / 0.2) ** 2 < side**2
    mask[: side // 20, side - side // 20 :] = True
    polygons = trace(mask)
    assert len(polygons) == 2, "both parts"
    assert trace(np.asfortranarray(mask)) == polygons, "by columns, as run lengths are decoded"
    again = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(again, [np.reshape(polygon, (-1, 2)) for polygon in polygons], 1)
    dice = 2 * np.count_nonzero(mask & (again > 0)) / (np.count_nonzero(mask) + np.count_nonzero(again))
    assert dice > 0.99 and sum(map(len, polygons)) < 400
    assert trace(np.zeros((50, 50), bool)) == []


def page_film(number: int, status: str = ACCEPTED, agreement: float | None = 0.9) -> PageFilm:
    return PageFilm(number, f"{number}.png", Path(f"/{number}.png"), "d", status, (), agreement, 0.3, 1.0, False, "ward")


def test_what_a_person_should_see_first_is_first() -> None:
    films = [
        page_film(1), page_film(2, REJECTED, 0.1), page_film(3, REVIEW, 0.95), page_film(4, agreement=0.2),
        page_film(5, REVIEW, 0.5), page_film(6, REVIEW, None), page_film(0),
    ]  # fmt: skip
    assert [film.image_id for film in by_risk(films)] == [5, 3, 6, 2, 4, 0, 1]


def test_reasons_are_alike_whatever_their_numbers() -> None:
    for reason in ("agreement 0.123 is low (Dice)", "agreement 1,000 is low"):
        assert kind_of_reason(reason) == "agreement … is low"


def judged(number: int, status: str = ACCEPTED, reasons: tuple[str, ...] = (), **more: object) -> JudgedFilm:
    values = {"agreement": 0.9, "original": number, "area": 0.3, "ratio": 1.0, "inverted": False, "lungs": 2}
    source = Source(Path("/root"), f"{number}.png", "collection", "", "", "")
    return JudgedFilm(source, number, status, reasons, group=number, **{**values, **more})  # type: ignore[arg-type]


def test_groups_of_copies() -> None:
    films = [judged(5), judged(6, original=5), judged(7), judged(8, original=9), judged(9), judged(2, original=5)]
    assert [[film.image_id for film in group] for group in groups_of_copies(films)] == [[5, 6, 2], [8, 9]]


def bars(shapes: Iterable[Bar], name: str) -> np.ndarray:
    """x, y, width and height of the bars of a class."""
    return np.array([shape[1:] for shape in shapes if shape.name == name], float).reshape(-1, 4)


def test_a_histogram_stacks_its_classes() -> None:
    chart = histogram({"accepted": [0.1, 0.1, 0.1, 0.9], "review": [0.1, 7.0, -1.0]}, 0.0, 1.0, 2)
    accepted, review = bars(chart.bars, "accepted"), bars(chart.bars, "review")
    assert [(tick.place, tick.text) for tick in chart.y] == [(0, "0"), (pytest.approx(100 / 3), "2"),
                                                             (pytest.approx(200 / 3), "4"), (100, "6")]  # fmt: skip
    np.testing.assert_allclose(accepted[:, 3], [HEIGHT * 3 / 6, HEIGHT / 6])
    np.testing.assert_allclose(review[:, 3], [HEIGHT * 2 / 6, HEIGHT / 6])
    np.testing.assert_allclose(review[:, 1] + review[:, 3], accepted[:, 1])
    np.testing.assert_allclose(accepted[:, 1] + accepted[:, 3], HEIGHT)
    assert accepted[0, 0] < WIDTH / 2 < accepted[1, 0]
    assert [tick.text for tick in chart.x] == ["≤ 0", "0.2", "0.4", "0.6", "0.8", "≥ 1"]
    assert [tick.text for tick in histogram({"accepted": [0.5]}, 0.0, 1.0, 2).x][::5] == ["0", "1"]


@pytest.mark.parametrize("highest", [1, 2, 3, 4, 7, 16, 99, 100, 101, 12345, 100_000])
def test_the_axis_of_counts_has_round_numbers_that_reach_the_highest_bar(highest: int) -> None:
    ticks = histogram({"accepted": [0.5] * highest}, 0.0, 1.0, 2).y
    counts = [int(tick.text.replace(",", "")) for tick in ticks]
    step = counts[1]
    assert counts == list(range(0, counts[-1] + 1, step)) and counts[-2] <= highest <= counts[-1]
    assert 2 <= len(counts) <= 6 and str(step).rstrip("0") in ("1", "2", "5")


def test_a_strip_shows_percentiles() -> None:
    values = np.linspace(0.2, 0.8, 101)
    shapes = strip(values.tolist(), 0.0, 1.0)
    (whisker,), (box,), (median,) = bars(shapes, "whisker"), bars(shapes, "box"), bars(shapes, "median")
    np.testing.assert_allclose([whisker[0], whisker[0] + whisker[2]], [230, 770], atol=0.2)
    np.testing.assert_allclose([box[0], box[0] + box[2]], [350, 650], atol=0.2)
    assert median[0] + median[2] / 2 == pytest.approx(500, abs=0.2)
    assert summary(values.tolist()) == "0.50 (0.23 to 0.77)"
    assert strip([3.0], 0.0, 1.0)[-1].x == WIDTH - 4, "beyond the axis it lies at its end"
