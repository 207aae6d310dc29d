"""A dataset for others: as the published JSON, as one folder that can be moved, and in tools that read COCO."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from create_dataset import exports
from create_dataset.exports import copy_images, write_legacy
from create_dataset.lungs import enlarge_lungs, find_small_lungs
from mask_rcnn.dataset import legacy
from mask_rcnn.dataset.coco import annotation, new_dataset, to_xywh
from mask_rcnn.dataset.run_lengths import decode_mask
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.dataset.training_films import load_films
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.files import write_json
from mask_rcnn.utils import mask_box

SCRIPTS = str(Path(__file__).resolve().parents[1] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

import make_phantoms  # noqa: E402

NAMES = ("one/a.png", "one/b.jpg", "two/a.png", "two/폐 & ü.png", "two/tall.png")
SIZES = ((300, 240), (200, 320), (128, 128), (64, 90), (600, 40))
INVERTED, REVIEW, ONE_LUNG = 1, 2, 3  # by their place in NAMES


def draw(height: int, width: int, seed: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Bones white, lungs dark, the patient's left lung on the image's right."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    left, right = ((x - 0.45) / 0.3) ** 2 + (y / 0.7) ** 2 < 1, ((x + 0.4) / 0.35) ** 2 + (y / 0.6) ** 2 < 1
    lungs = {LEFT_LUNG: left, RIGHT_LUNG: right}
    grey = 180 + 40 * y - 100 * (left | right) + np.random.default_rng(seed).normal(0, 2, y.shape)
    return np.clip(grey, 0, 255).astype(np.uint8), lungs


@pytest.fixture
def films() -> list[tuple[np.ndarray, dict[int, np.ndarray]]]:
    drawn = [draw(*size, seed) for seed, size in enumerate(SIZES)]
    del drawn[ONE_LUNG][1][LEFT_LUNG]
    return drawn


@pytest.fixture
def made(tmp_path: Path, films: list[tuple[np.ndarray, dict[int, np.ndarray]]]) -> tuple[dict[str, Any], Path]:
    """A dataset as ``create_dataset.py`` makes it, and its folder."""
    dataset = new_dataset("patient", {"roots": ["../films/one", "../films/two"]})
    for k, (name, (film, lungs)) in enumerate(zip(NAMES, films, strict=True)):
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - film if k == INVERTED else film).save(path, quality=95)
        root, file_name = name.split("/")
        image_id = 2**40 + 7 * k
        dataset["images"].append({
            "id": image_id, "root": ["one", "two"].index(root), "file_name": file_name,
            "height": film.shape[0], "width": film.shape[1], "collection": "drawn", "split": "", "label": "",
            "patient": "p1" if k in (0, 4) else "", "group": 2**40 if k in (0, 4) else image_id,
            "inverted": k == INVERTED, "spacing_mm": [0.2, 0.3] if k == 0 else None,
            "quality": "review" if k == REVIEW else "accepted", "agreement": 0.97,
            **({"reasons": ["the lungs are small"]} if k == REVIEW else {}),
        })  # fmt: skip
        for category, lung in lungs.items():
            dataset["annotations"].append(annotation(2 * image_id + category, image_id, category, lung))
    out = tmp_path / "out"
    write_json(out / "dataset.json", dataset)
    return dataset, out


def masks_of(dataset: dict[str, Any], image_id: int) -> dict[int, np.ndarray]:
    return {
        record["category_id"]: decode_mask(record["segmentation"])
        for record in dataset["annotations"] if record["image_id"] == image_id
    }  # fmt: skip


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


# The published JSON


@pytest.mark.parametrize("laterality", ["patient", "image"])
def test_accepted_films_become_the_published_json(
    made: tuple[dict[str, Any], Path], films: list[tuple[np.ndarray, dict[int, np.ndarray]]], laterality: str
) -> None:
    dataset, out = made
    dataset["info"]["laterality"] = laterality
    path = out / "training_dataset.json"
    assert write_legacy(dataset, out, path) == 4
    assert [file.name for file in out.iterdir() if file.name != "dataset.json"] == [path.name]
    records = json.loads(path.read_text())
    assert [record["image_info"]["image_id"] for record in records] == [0, 1, 2, 3]
    for item, k in zip(legacy.read_films(path), (0, 1, 3, 4), strict=True):
        film, lungs = films[k]
        square = cv2.resize(film, (256, 256), interpolation=cv2.INTER_AREA)
        assert np.abs(item.film.astype(int) - square).mean() < 3  # a JPEG; the inverted one stands upright
        sides = lungs if laterality == "image" else {LEFT_LUNG + RIGHT_LUNG - key: lung for key, lung in lungs.items()}
        assert item.lungs.keys() == sides.keys()
        for category, lung in item.lungs.items():
            stretched = cv2.resize(sides[category].astype(np.uint8), (256, 256), interpolation=cv2.INTER_NEAREST_EXACT) > 0
            assert overlap(lung, stretched) > 0.97
        if laterality == "patient" and len(lungs) == 2:
            left, right = (np.nonzero(item.lungs[side])[1].mean() for side in (LEFT_LUNG, RIGHT_LUNG))
            assert left < right, "the published left lung is the one on the image's left"


@pytest.mark.parametrize("laterality", ["patient", "image"])
def test_training_reads_the_same_from_either(made: tuple[dict[str, Any], Path], laterality: str) -> None:
    dataset, out = made
    dataset["info"]["laterality"] = laterality
    write_json(out / "dataset.json", dataset)
    write_legacy(dataset, out, out / "old.json")
    own = load_films(read_records(out / "dataset.json", laterality), 256)
    old = load_films(read_records(out / "old.json", laterality), 256)
    assert len(own) == len(old) == 4
    for one, other in zip(own, old, strict=True):
        y1, x1, y2, x2 = one.window  # the published film is stretched
        stretched = cv2.resize(one.labels[y1:y2, x1:x2], (256, 256), interpolation=cv2.INTER_NEAREST)
        for category in np.unique(one.labels)[1:]:
            assert overlap(stretched == category, other.labels == category) > 0.9
        assert np.unique(one.labels).tolist() == np.unique(other.labels).tolist()


def test_a_film_that_is_gone_is_left_out_by_name(
    made: tuple[dict[str, Any], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, out = made
    (tmp_path / "films" / NAMES[0]).unlink()
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(tmp_path / "films" / NAMES[4])
    assert write_legacy(dataset, out, out / "old.json") == 2
    assert len(json.loads((out / "old.json").read_text())) == 2
    copied = copy_images(dataset, out, 100)
    assert [image["original_name"] for image in copied["images"]] == ["b.jpg", "a.png", "폐 & ü.png"]
    assert {record["image_id"] for record in copied["annotations"]} == {image["id"] for image in copied["images"]}
    lines = capsys.readouterr().err.splitlines()
    for name, said in ((NAMES[0], "no such file"), (NAMES[4], "another size")):
        told = [line for line in lines if line.startswith("left out ") and name in line and said in line]
        assert len(told) == 2 and all("; " in line for line in told)


def test_an_export_that_fails_leaves_nothing_behind(
    made: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out = made
    (out / "old.json").write_text("older")
    formatted = legacy.format_film

    def full_disk(number: int, *film: Any) -> str:
        if number == 2:
            raise OSError(28, "No space left on device")
        return formatted(number, *film)

    monkeypatch.setattr(legacy, "format_film", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_legacy(dataset, out, out / "old.json")
    assert sorted(file.name for file in out.iterdir()) == ["dataset.json", "old.json"]
    assert (out / "old.json").read_text() == "older"


# One folder


@pytest.mark.parametrize("side", [100, 256, 4096])
def test_copies_fit_their_records(
    made: tuple[dict[str, Any], Path], films: list[tuple[np.ndarray, dict[int, np.ndarray]]], side: int
) -> None:
    dataset, out = made
    before = json.dumps(dataset)
    copied = copy_images(dataset, out, side)
    assert json.dumps(dataset) == before, "the dataset itself is not changed"
    assert copied["info"]["roots"] == ["."] and copied["info"]["original_roots"] == ["../films/one", "../films/two"]
    assert [image["id"] for image in copied["images"]] == [image["id"] for image in dataset["images"]]
    for image, original, (film, lungs) in zip(copied["images"], dataset["images"], films, strict=True):
        height, width = film.shape
        copy = read_film(out / image["file_name"])
        assert copy.shape == (image["height"], image["width"])
        assert max(copy.shape) == min(side, max(film.shape)) or min(copy.shape) == 32
        assert abs(copy.shape[0] / copy.shape[1] - height / width) < 0.6 * height / width / min(copy.shape)
        expected = cv2.resize(film, copy.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(copy.astype(int) - expected).mean() < 3, "bones are white in all copies"
        assert not image["inverted"]
        with Image.open(out / image["file_name"]) as file:
            assert (file.format, file.mode) == ("PNG", "L")
        masks = masks_of(copied, image["id"])
        assert masks.keys() == lungs.keys()
        for record in copied["annotations"]:
            if record["image_id"] == image["id"]:
                mask = masks[record["category_id"]]
                assert mask.shape == copy.shape and record["area"] == mask.sum()
                assert record["bbox"] == to_xywh(mask_box(mask))
                lung = lungs[record["category_id"]].astype(np.float32)
                shrunk = cv2.resize(lung, copy.shape[::-1], interpolation=cv2.INTER_AREA)
                assert overlap(mask, shrunk > 0.5) > 0.99
        kept = set(original) - {"root", "file_name", "height", "width", "inverted", "spacing_mm"}
        assert all(image[key] == original[key] for key in kept)
        assert (image["original_root"], image["original_name"]) == (original["root"], original["file_name"])
    assert [record["id"] for record in copied["annotations"]] == [record["id"] for record in dataset["annotations"]]
    spacing = copied["images"][0]["spacing_mm"]
    np.testing.assert_allclose(spacing, np.array([0.2, 0.3]) * 300 / min(side, 300), rtol=0.01)
    assert copied["images"][1]["spacing_mm"] is None


def test_the_folder_can_be_moved_and_trained_from(made: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    dataset, out = made
    before = load_films(read_records(out / "dataset.json", "patient"), 64)
    write_json(out / "dataset.json", copy_images(dataset, out, 128))
    moved = tmp_path / "elsewhere" / "dataset"
    moved.parent.mkdir()
    shutil.move(out, moved)
    shutil.rmtree(tmp_path / "films")
    records = read_records(moved / "dataset.json", "patient")
    assert all(moved in record.path.parents for record in records)
    after = load_films(records, 64)
    assert [film.record.group for film in after] == [film.record.group for film in before]
    for one, other in zip(before, after, strict=True):
        assert np.abs(one.film.astype(int) - other.film).mean() < 12
        for category in np.unique(one.labels)[1:]:
            assert overlap(one.labels == category, other.labels == category) > 0.93


def test_a_copy_that_is_there_is_kept(made: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    dataset, out = made

    def times() -> list[int]:
        return [(out / f"images/{image['id']}.png").stat().st_mtime_ns for image in dataset["images"]]

    first = copy_images(dataset, out, 100)
    for path in (out / "images").iterdir():
        os.utime(path, ns=(1, 1))
    assert copy_images(dataset, out, 100) == first
    assert times() == [1] * 5
    torn = out / first["images"][0]["file_name"]
    torn.write_bytes(torn.read_bytes()[:20])
    changed = tmp_path / "films" / NAMES[2]
    Image.fromarray(np.full(SIZES[2], 77, np.uint8)).save(changed)
    dataset["images"][3]["inverted"] = True
    assert copy_images(dataset, out, 100)["annotations"] == first["annotations"]
    assert [time == 1 for time in times()] == [False, True, False, False, True]
    assert (read_film(out / first["images"][2]["file_name"]) == 77).all()
    copy_images(dataset, out, 50)
    assert [time == 1 for time in times()] == [False] * 4 + [True], "32 pixels across is the least at either size"
    assert len(list((out / "images").iterdir())) == 5


def test_copies_keep_their_names_when_films_are_added(made: tuple[dict[str, Any], Path]) -> None:
    dataset, out = made
    fewer = {**dataset, "images": dataset["images"][2:], "annotations": dataset["annotations"][4:]}
    names = {image["id"]: image["file_name"] for image in copy_images(fewer, out, 64)["images"]}
    assert names.items() <= {image["id"]: image["file_name"] for image in copy_images(dataset, out, 64)["images"]}.items()


def test_a_lung_that_vanishes_is_no_annotation(made: tuple[dict[str, Any], Path]) -> None:
    dataset, out = made
    image = dataset["images"][0]
    speck = np.zeros((image["height"], image["width"]), bool)
    speck[10, 10] = True
    dataset["annotations"] = [annotation(1, image["id"], LEFT_LUNG, speck)]
    assert copy_images(dataset, out, 64)["annotations"] == []
    assert len(copy_images(dataset, out, 4096)["annotations"]) == 1


def test_a_copy_that_cannot_be_written_stops_it(made: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, out = made

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exports.Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        copy_images(dataset, out, 64)
    assert list((out / "images").iterdir()) == []


# Other tools


def assert_shows_the_same(tool: Any, dataset: dict[str, Any]) -> None:
    """What a COCO reader says of categories, images and masks, against our own records and decoder."""
    categories = tool.loadCats(tool.getCatIds())
    assert {category["id"]: category["name"] for category in categories} == CATEGORIES
    assert sorted(tool.getImgIds()) == sorted(image["id"] for image in dataset["images"])
    assert sorted(tool.getAnnIds()) == sorted(record["id"] for record in dataset["annotations"])
    for image in dataset["images"]:
        assert tool.loadImgs([image["id"]])[0]["file_name"] == image["file_name"]
        for record in tool.loadAnns(tool.getAnnIds(imgIds=[image["id"]])):
            mask = tool.annToMask(record)
            np.testing.assert_array_equal(mask, masks_of(dataset, image["id"])[record["category_id"]])


@pytest.mark.parametrize("copied", [False, True])
def test_pycocotools_opens_it(made: tuple[dict[str, Any], Path], copied: bool, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, out = made
    if copied:
        dataset = copy_images(dataset, out, 100)
        write_json(out / "dataset.json", dataset)
    assert_shows_the_same(COCO(str(out / "dataset.json")), dataset)


@pytest.mark.parametrize("copied", [False, True])
def test_faster_coco_eval_opens_it(made: tuple[dict[str, Any], Path], copied: bool) -> None:
    """A reader and mask decoder of its own, in C++ (https://pypi.org/project/faster-coco-eval)."""
    other = pytest.importorskip("faster_coco_eval", reason="needs faster-coco-eval of requirements-dev.txt")
    dataset, out = made
    if copied:
        dataset = copy_images(dataset, out, 100)
        write_json(out / "dataset.json", dataset)
    assert_shows_the_same(other.COCO(str(out / "dataset.json")), dataset)


# Size


def test_a_film_costs_under_4_kilobytes(tmp_path: Path) -> None:
    """Of 1328 x 971 pixels, the mean of chest-xray-pneumonia, with the outlines that the pipeline gives a phantom's lungs.

    Run lengths take two characters or more a column of lung, so a film of twice the size costs nearly twice that.
    """
    _, labels = make_phantoms.draw_phantom(np.random.default_rng(5), (256, 256))
    votes = cv2.GaussianBlur((labels > 0).astype(np.float32), (0, 0), 1.5)[None]
    lungs = enlarge_lungs(find_small_lungs(votes), votes, 971, 1328)
    dataset = new_dataset("patient", {})
    for image_id in range(3):
        dataset["images"].append({
            "id": 2**47 + image_id, "root": 0, "file_name": "train/PNEUMONIA/person1234_bacteria_5678.jpeg",
            "height": 971, "width": 1328, "collection": "chest_xray", "split": "train", "label": "PNEUMONIA",
            "patient": "person1234", "group": 2**47, "inverted": False, "spacing_mm": [0.143, 0.143],
            "quality": "review", "agreement": 0.9712,
            "reasons": ["a reason of some sixty letters, as a reader would have it"],
        })  # fmt: skip
        for category, lung in lungs.items():
            dataset["annotations"].append(annotation(2**48 + 2 * image_id + category, image_id, category, lung))
    assert len(lungs) == 2 and all(lung.sum() > 0.1 * lung.size for lung in lungs.values())
    write_json(tmp_path / "dataset.json", dataset)
    assert (tmp_path / "dataset.json").stat().st_size < 3 * 4000
