"""The page to look at: whole in itself, safe against any file name, and right in what it draws and counts."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_in import STANDS_IN, draw_film, write_weights

from create_dataset.assemble import JudgedFilm
from create_dataset.charts import HEIGHT, WIDTH, histogram, strip, summary
from create_dataset.command import main
from create_dataset.report import LEAST_CERTAIN, REPORT, SHEET, choose, groups_of_copies, kind_of_reason
from create_dataset.sources import Source
from create_dataset.thumbnails import SIDE, render_thumbnail
from mask_rcnn.checks.quality import ACCEPTED, REVIEW
from mask_rcnn.dataset.coco import annotation
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.results.drawing import LUNG_COLOURS

EVIL = "<img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "rect"}


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
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
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
    return Page((root / "out" / REPORT).read_text(encoding="utf-8"))


def test_nothing_is_loaded_and_nothing_is_run(page: Page) -> None:
    tags = Counter(tag for tag, _ in page.tags)
    assert not tags.keys() & {"script", "link", "iframe", "object", "embed", "base", "form", "b2"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "srcset", "data", "action"):
            assert re.match(r"data:image/jpeg;base64,|#", attributes.get(name) or "#"), (tag, attributes)
    policies = [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'")
    assert "url(" not in page.text


def test_names_are_shown_as_they_are(page: Page) -> None:
    for name in (f"{EVIL}.png", "<script>1.png", f"{EVIL} torn.png", "A & B", '"><b>class'):
        assert name in page.text, name
    assert len([tag for tag, _ in page.tags if tag == "style"]) == 1


def test_a_reader_without_sight_is_told(page: Page) -> None:
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) >= 5 + 2, "every film, and the copies once more"
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
    assert len(links) > 5 and {(link or "").removeprefix("#") for link in links} <= set(ids)


def test_the_counts_are_told(page: Page) -> None:
    assert "Lungs found on 5 chest films" in page.text
    assert "1 copy of other films" in page.text and "1 group of 2 films" in page.text
    assert "a <b>folder</b> without films: holds no film" in page.text
    assert "is no image: 1 file" in page.text and "the file is empty: 1 file" in page.text
    assert "quality.min_agreement" in page.text and "tensorflow" in page.text


def test_the_pictures_are_small_jpegs(page: Page) -> None:
    for tag, attributes in page.tags:
        if tag == "img":
            jpeg = base64.b64decode((attributes["src"] or "").split(",")[1])
            with Image.open(io.BytesIO(jpeg)) as image:
                assert image.format == "JPEG" and max(image.size) <= SIDE


@pytest.mark.parametrize("inverted", [False, True])
def test_lungs_are_outlined_in_their_colours(inverted: bool, tmp_path: Path) -> None:
    film = np.full((600, 480), 180, np.uint8)
    lungs = {category: np.zeros(film.shape, bool) for category in (LEFT_LUNG, RIGHT_LUNG)}
    lungs[LEFT_LUNG][100:500, 300:420] = True
    lungs[RIGHT_LUNG][100:500, 60:180] = True
    Image.fromarray(255 - film if inverted else film).save(tmp_path / "film.png")
    records = [annotation(0, 0, category, lung) for category, lung in lungs.items()]
    picture = render_thumbnail(tmp_path / "film.png", {"inverted": inverted, "lungs": records}).astype(int)
    assert picture.shape == (SIDE, 192, 3)
    scale = SIDE / 600
    for category, column in ((LEFT_LUNG, 300), (LEFT_LUNG, 419), (RIGHT_LUNG, 60), (RIGHT_LUNG, 179)):
        edge = picture[SIDE // 2, round(column * scale) - 1 : round(column * scale) + 2]
        assert abs(edge - LUNG_COLOURS[category]).sum(1).min() < 30, category
    inside = picture[SIDE // 2, round(360 * scale)]
    assert (inside == 180).all(), "what is judged is not painted over"


def judged(number: int, status: str = ACCEPTED, reasons: tuple[str, ...] = (), **more: object) -> JudgedFilm:
    values = {"agreement": 0.9, "original": number, "area": 0.3, "ratio": 1.0, "inverted": False, "lungs": 2}
    source = Source(Path("/root"), f"{number}.png", "collection", "", "", "")
    return JudgedFilm(source, number, status, reasons, group=number, **{**values, **more})  # type: ignore[arg-type]


def test_a_sheet_is_a_sample() -> None:
    rng = np.random.default_rng(3)
    films = [judged(int(number), agreement=float(rng.random())) for number in rng.permutation(500)]
    sheet = choose(films, ACCEPTED)
    assert len(sheet) == SHEET == len({film.image_id for film in sheet})
    least = sorted(film.agreement for film in films)[:LEAST_CERTAIN]
    assert [film.agreement for film in sheet[:LEAST_CERTAIN]] == least
    assert choose(films[::-1], ACCEPTED) == sheet, "the same on every run"
    assert choose(films, REVIEW) == []


def test_a_rare_reason_is_shown_too() -> None:
    films = [judged(k, REVIEW, (f"agreement {k / 1000:.3f} is low (Dice)",)) for k in range(500)]
    rare = judged(1000, REVIEW, ("one lung found", "small"))
    sheet = choose([*films, rare], REVIEW)
    assert len(sheet) == SHEET and rare in sheet
    kinds = [kind_of_reason(film.reasons) for film in sheet]
    assert kinds == sorted(kinds) and set(kinds) == {"agreement … is low", "one lung found"}


def test_groups_of_copies() -> None:
    films = [judged(5), judged(6, original=5), judged(7), judged(8, original=9), judged(9), judged(2, original=5)]
    assert [[film.image_id for film in group] for group in groups_of_copies(films)] == [[5, 6, 2], [8, 9]]


def bars(svg: str, name: str) -> np.ndarray:
    """x, y, width and height of the bars of a class."""
    shapes = re.findall(rf'<rect class="{name}" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/>', svg)
    return np.array(shapes, float).reshape(-1, 4)


def test_a_histogram_stacks_its_classes() -> None:
    svg = histogram({"accepted": [0.1, 0.1, 0.1, 0.9], "review": [0.1, 7.0, -1.0]}, 0.0, 1.0, 2, 'say "so"')
    accepted, review = bars(svg, "accepted"), bars(svg, "review")
    np.testing.assert_allclose(accepted[:, 3], [HEIGHT * 3 / 5, HEIGHT / 5])
    np.testing.assert_allclose(review[:, 3], [HEIGHT * 2 / 5, HEIGHT / 5])
    np.testing.assert_allclose(review[:, 1] + review[:, 3], accepted[:, 1])
    np.testing.assert_allclose(accepted[:, 1] + accepted[:, 3], HEIGHT)
    assert accepted[0, 0] < WIDTH / 2 < accepted[1, 0]
    assert 'aria-label="say &quot;so&quot;"' in svg


def test_a_strip_shows_percentiles() -> None:
    values = np.linspace(0.2, 0.8, 101)
    svg = strip(values.tolist(), 0.0, 1.0)
    (whisker,), (box,), (median,) = bars(svg, "whisker"), bars(svg, "box"), bars(svg, "median")
    np.testing.assert_allclose([whisker[0], whisker[0] + whisker[2]], [230, 770], atol=0.2)
    np.testing.assert_allclose([box[0], box[0] + box[2]], [350, 650], atol=0.2)
    assert median[0] + median[2] / 2 == pytest.approx(500, abs=0.2)
    assert summary(values.tolist()) == "0.50 (0.23 to 0.77)"
    assert "median" in strip([3.0], 0.0, 1.0), "beyond the axis it lies at its end"
