"""The published nested-list JSON: written as published, read in every shape it is found in, refused where it is torn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mask_rcnn.dataset import legacy
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.legacy import SIDE, format_film, is_legacy, read_films
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG

Film = tuple[np.ndarray, dict[int, np.ndarray]]


def draw(seed: int, side: int = 40) -> Film:
    """Noise and two rectangles; far smaller than published films, so that the tests are quick."""
    rng = np.random.default_rng(seed)
    lungs = {}
    for category, left in ((LEFT_LUNG, side // 8), (RIGHT_LUNG, 5 * side // 8)):  # image sides
        lungs[category] = np.zeros((side, side), bool)
        top = int(rng.integers(1, side // 4))
        lungs[category][top : top + side // 2, left : left + side // 4] = True
    return rng.integers(0, 256, (side, side), np.uint8), lungs


def write(path: Path, films: list[Film]) -> Path:
    items = [format_film(number, *film) for number, film in enumerate(films)]
    path.write_text("[" + ",\n".join(items) + "]\n", encoding="ascii")
    return path


def assert_equal(path: Path, films: list[Film]) -> None:
    read = list(read_films(path))
    assert len(read) == len(films)
    for item, (film, lungs) in zip(read, films, strict=True):
        np.testing.assert_array_equal(item.film, film)
        assert item.film.dtype == np.uint8 and item.lungs.keys() == lungs.keys()
        for category, lung in lungs.items():
            assert item.lungs[category].dtype == bool
            np.testing.assert_array_equal(item.lungs[category], lung)


def test_a_film_is_written_as_published() -> None:
    film, lungs = draw(0, SIDE)
    record = json.loads(format_film(7, film, lungs))
    assert list(record) == ["instance_info", "image", "image_info"]
    assert record["image_info"] == {"image_id": 7, "width": 256, "height": 256, "file_name": "7.jpg"}
    assert list(record["image"]) == ["original_image"]
    pixels = np.array(record["image"]["original_image"])
    assert pixels.shape == (256, 256, 3) and pixels.dtype.kind == "i"
    np.testing.assert_array_equal(pixels, np.repeat(film[..., None], 3, axis=2))
    background, left, right = record["instance_info"]
    assert all(
        list(instance) == ["class_id", "class_name", "bbox", "height", "width", "mask_image"]
        for instance in (background, left, right)
    )
    assert (background["class_id"], background["class_name"], background["bbox"]) == (0, "background", [0, 0, 256, 256])
    assert (background["height"], background["width"]) == (256, 256)
    masks = {0: ~(lungs[1] | lungs[2]), **lungs}
    for instance in (background, left, right):
        mask = np.array(instance["mask_image"])
        assert mask.shape == (256, 256, 1)
        np.testing.assert_array_equal(mask[..., 0], masks[instance["class_id"]])
    assert [(instance["class_id"], instance["class_name"]) for instance in (left, right)] == [
        (1, "left lung"), (2, "right lung"),
    ]  # fmt: skip
    rows, columns = np.nonzero(lungs[1])
    assert left["bbox"] == [rows.min(), columns.min(), rows.max(), columns.max()], "both corners are inside"
    assert (left["height"], left["width"]) == (127, 63)
    assert left["mask_image"][0][0] == [False] and background["mask_image"][0][0] == [1]


def test_a_missing_lung_is_no_instance() -> None:
    film, lungs = draw(0)
    del lungs[LEFT_LUNG]
    record = json.loads(format_film(0, film, lungs))
    assert [instance["class_id"] for instance in record["instance_info"]] == [0, 2]
    assert len(json.loads(format_film(0, film, {}))["instance_info"]) == 1


@pytest.mark.parametrize("chunk", [1_000_000, 100_000, 20_000, 1_000])
def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """With chunks of all films, two films, half a film and a fiftieth."""
    monkeypatch.setattr(legacy, "CHUNK", chunk)
    films = [draw(seed) for seed in range(5)]
    films[2][1].clear()
    assert_equal(write(tmp_path / "dataset.json", films), films)


def published(path: Path, films: list[Film], change: Callable[[dict[str, Any]], Any] = lambda record: None) -> Path:
    """As the published program writes it: indented by tabs."""
    records = [json.loads(format_film(number, *film)) for number, film in enumerate(films)]
    for record in records:
        change(record)
    path.write_text(json.dumps(records, indent="\t", ensure_ascii=False), encoding="utf-8")
    return path


def test_a_published_file_is_read(tmp_path: Path) -> None:
    films = [draw(0, SIDE), draw(1)]
    path = published(tmp_path / "dataset.json", films)
    assert path.stat().st_size > 8_000_000
    assert is_legacy(path)
    assert_equal(path, films)


def floats(record: dict[str, Any]) -> None:
    for instance in record["instance_info"]:
        instance["mask_image"] = np.array(instance["mask_image"], float).tolist()


def flat_masks(record: dict[str, Any]) -> None:
    for instance in record["instance_info"]:
        instance["mask_image"] = np.array(instance["mask_image"])[..., 0].astype(int).tolist()


def one_channel(record: dict[str, Any]) -> None:
    record["image"]["original_image"] = np.array(record["image"]["original_image"])[..., :1].tolist()


def no_channel(record: dict[str, Any]) -> None:
    record["image"]["original_image"] = np.array(record["image"]["original_image"])[..., 0].tolist()


@pytest.mark.parametrize("change", [floats, flat_masks, one_channel, no_channel])
def test_other_shapes_of_the_same_are_read(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    films = [draw(3)]
    assert_equal(published(tmp_path / "dataset.json", films, change), films)


def test_colour_becomes_grey(tmp_path: Path) -> None:
    def tint(record: dict[str, Any]) -> None:
        pixels = np.array(record["image"]["original_image"])
        pixels[..., 0] = 0
        record["image"]["original_image"] = pixels.tolist()

    film, lungs = draw(0)
    (item,) = read_films(published(tmp_path / "dataset.json", [(film, lungs)], tint))
    np.testing.assert_allclose(item.film, 0.886 * film, atol=1)  # blue, the first channel, has 0.114


def test_an_empty_list_holds_no_film(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    for text in ("[]", " [\n]\n"):
        path.write_text(text)
        assert is_legacy(path) and list(read_films(path)) == []


def test_an_object_or_nothing_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    for text in ("", '{"images": []}', '"["'):
        path.write_text(text)
        assert not is_legacy(path)
    assert not is_legacy(tmp_path / "absent.json")
    assert not is_legacy(tmp_path)


@pytest.mark.parametrize("keep", [0.999, 0.5, 0.001])
def test_a_torn_file_is_refused_after_the_whole_films(tmp_path: Path, keep: float) -> None:
    films = [draw(0), draw(1)]
    path = write(tmp_path / "torn.json", films)
    whole = path.read_bytes()
    start = whole.index(b",\n")
    path.write_bytes(whole[: start + int(keep * (len(whole) - start))])
    read = []
    with pytest.raises(DatasetError, match="torn.json: not readable as a list of films.*; "):
        for item in read_films(path):
            read.append(item)
    assert len(read) == 1 and (read[0].film == films[0][0]).all()


def test_what_is_no_json_is_refused_without_reading_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "broken.json"
    path.write_text('[{"instance_info": [oops' + " " * 100_000)
    monkeypatch.setattr(legacy, "CHUNK", 10_000)
    asked = []
    decode = json.JSONDecoder.raw_decode

    def counted(self: json.JSONDecoder, text: str, index: int = 0) -> tuple[Any, int]:
        asked.append(len(text))
        return decode(self, text, index)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
    with pytest.raises(DatasetError, match="not readable"):
        list(read_films(path))
    assert len(asked) == 1
    path.write_bytes(b"[\xff\xfe")
    with pytest.raises(DatasetError, match="not readable"):
        list(read_films(path))


def ragged(record: dict[str, Any]) -> None:
    record["instance_info"][1]["mask_image"][3] = [[True]]


def no_pixels(record: dict[str, Any]) -> None:
    del record["image"]["original_image"]


def too_bright(record: dict[str, Any]) -> None:
    record["image"]["original_image"][5][5] = [256, 256, 256]


def words(record: dict[str, Any]) -> None:
    record["image"]["original_image"] = "pixels"


def small_mask(record: dict[str, Any]) -> None:
    record["instance_info"][2]["mask_image"] = [[[True]]]


def empty_film(record: dict[str, Any]) -> None:
    record["image"]["original_image"] = []


def a_number(record: dict[str, Any]) -> None:
    record["instance_info"] = 3


@pytest.mark.parametrize("change", [ragged, no_pixels, too_bright, words, small_mask, empty_film, a_number])
def test_a_film_that_is_not_as_published_is_refused_by_its_number(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    records = [json.loads(format_film(number, *draw(number))) for number in range(2)]
    change(records[1])
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(records))
    with pytest.raises(DatasetError, match="film 1 of the list is not as published") as caught:
        list(read_films(path))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_list_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    path.write_text("[1, 2]")
    with pytest.raises(DatasetError, match="film 0 of the list is not as published"):
        list(read_films(path))
