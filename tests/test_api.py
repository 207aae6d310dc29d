"""Python's face: what it gives is what the commands write, for the same films.

Two networks of random weights that call nearly everything a lung stand for the bag, as in test_inference.py; the five that
ship predict by the same lines in test_package.py.
"""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from films import ten_bit, write_dicom
from PIL import Image
from test_inference import compile_once, save_network

import mask_rcnn
from mask_rcnn.commands import inference
from mask_rcnn.config import ConfigError
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.films.images import FilmError
from mask_rcnn.lungs import CATEGORIES, SIDES

ROOT = Path(__file__).resolve().parent.parent
PHANTOMS = ROOT / "data" / "phantoms"

__all__ = ["compile_once"]  # a fixture that every test here uses


def phantom(number: int) -> np.ndarray:
    return np.asarray(Image.open(PHANTOMS / "images" / f"phantom_{number:04}.png"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [save_network(folder / f"member_{seed}.weights.h5", seed) for seed in range(2)]


@pytest.fixture(scope="module")
def bag(weights: list[Path], all_eagerly: None) -> mask_rcnn.Bag:
    return mask_rcnn.load_bag(weights)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A plain film, an inverted one, a DICOM film of one side by its header, and one of a single grey, without lungs.

    The second has its spacing beside it, the third in its header.
    """
    folder = tmp_path_factory.mktemp("films")
    write_dicom(folder / "c.dcm", ten_bit(phantom(3)), "MONOCHROME2", 10, ImageLaterality="L",
                ImagerPixelSpacing=[0.171, 0.143], EstimatedRadiographicMagnificationFactor=1.07)
    (folder / "b.json").write_text('{"spacing_mm": [0.35, 0.4]}')
    for name, pixels in (("a.png", phantom(1)), ("b.png", 255 - phantom(2)), ("d.png", np.full((200, 180), 99, np.uint8))):
        Image.fromarray(pixels).save(folder / name)
    return sorted(path for path in folder.iterdir() if path.suffix != ".json")


@pytest.fixture(scope="module")
def results(bag: mask_rcnn.Bag, films: list[Path]) -> list[mask_rcnn.Result]:
    return list(bag.predict_many(films))


def test_the_command_gives_the_same(
    weights: list[Path], films: list[Path], results: list[mask_rcnn.Result], tmp_path: Path
) -> None:
    arguments = ["--weights", *map(str, weights), "--src", str(films[0].parent), "--out", str(tmp_path)]
    assert inference.main(arguments) == 0
    with (tmp_path / "measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    boxes: dict[tuple[int, int], dict[str, Any]] = {
        (entry["image_id"], entry["category_id"]): entry for entry in json.loads((tmp_path / "results.json").read_text())
    }
    assert len(rows) == len(results) == 4
    for row, result, path in zip(rows, results, films, strict=True):
        labels = np.asarray(Image.open(tmp_path / "masks" / row["result"]))
        np.testing.assert_array_equal(result.labels, labels)
        np.testing.assert_array_equal(result.overlay(), np.asarray(Image.open(tmp_path / "overlays" / row["result"])))
        assert "; ".join(result.reasons) == row["reasons"]
        assert result.laterality == row["laterality"]
        assert (result.agreement, result.risk) == (float(row["agreement"]), float(row["risk"]))
        told = {key: "" if value is None else str(value) for key, value in result.measurements.items()}
        assert told == {key: row[key] for key in told} | {"file": str(path)}
        assert row.keys() - told.keys() == {"image_id", "result"}
        for category, side in SIDES.items():
            assert (side in result.lungs) == ((labels == category).any()) == (row[f"{side}_found"] == "1")
            if side in result.lungs:
                lung, entry = result.lungs[side], boxes[int(row["image_id"]), category]
                np.testing.assert_array_equal(lung.mask, labels == category)
                y1, x1, y2, x2 = lung.box
                assert [x1, y1, x2 - x1, y2 - y1] == entry["bbox"]
                assert round(lung.score, 6) == entry["score"]
    assert {len(result.lungs) for result in results} >= {2}
    assert [row["spacing_source"] for row in rows] == ["", "spacing_mm", "ImagerPixelSpacing", ""]
    assert any("one side only" in reason for reason in results[2].reasons)


def test_an_array_is_a_film_as_its_file_is(bag: mask_rcnn.Bag, films: list[Path]) -> None:
    of_array, of_file = bag.predict(phantom(1)), bag.predict(films[0])
    np.testing.assert_array_equal(of_array.labels, of_file.labels)
    assert {**of_array.measurements, "file": str(films[0])} == of_file.measurements
    assert of_array.film.path is None and of_file.film.path == films[0]


def test_batches_of_any_iterable(bag: mask_rcnn.Bag, films: list[Path], results: list[mask_rcnn.Result]) -> None:
    one_by_one = bag.predict_many((path for path in films[:3]), batch=1)
    for result, expected in zip(one_by_one, results[:3], strict=True):
        np.testing.assert_array_equal(result.labels, expected.labels)
        assert result.lungs.keys() == expected.lungs.keys()
    assert list(bag.predict_many([])) == []
    with pytest.raises(ValueError, match="batch must be 1 or more"):
        bag.predict_many(films, batch=0)
    beginning = bag.predict_many([films[0], "no_such_film.png"], batch=1)
    assert next(beginning).film.path == films[0]
    with pytest.raises(FilmError, match=r"no_such_film.png: there is no such file; "):
        next(beginning)


def test_files_are_read_with_all_that_their_header_tells(tmp_path: Path) -> None:
    film = mask_rcnn.read_film(write_dicom(
        tmp_path / "film.dcm", ten_bit(phantom(1)), "MONOCHROME2", 10,
        PixelSpacing=[0.5, 0.4], PatientOrientation=["R", "F"], ViewPosition="LL",
    ))  # fmt: skip
    assert film.spacing == (0.5, 0.4) and film.turned == "mirrored"
    assert film.doubts == ("a lateral film by its ViewPosition (LL)",)
    assert film.pixels.dtype == np.uint8 and film.pixels.shape == phantom(1).shape


@pytest.mark.parametrize("mode", ["grey", "16 bits", "colours", "inverted"])
def test_arrays_are_read_as_their_png_would_be(mode: str, tmp_path: Path) -> None:
    grey = phantom(5)
    array = {
        "grey": grey, "16 bits": grey.astype(np.uint16) * 100 + 7, "inverted": 255 - grey,
        "colours": np.stack([grey, grey // 2, grey], axis=-1),
    }[mode]  # fmt: skip
    cv2.imwrite(str(tmp_path / "film.png"), array[..., ::-1] if mode == "colours" else array)
    film, of_file = mask_rcnn.read_film(array), mask_rcnn.read_film(tmp_path / "film.png")
    np.testing.assert_array_equal(film.pixels, of_file.pixels)
    assert film.inverted == of_file.inverted == (mode == "inverted")


def test_floats_span_the_greys() -> None:
    film = mask_rcnn.read_film(phantom(1) / np.float32(127.5) * 1024 - 1024)  # as torchxrayvision normalises
    np.testing.assert_allclose(film.pixels, cv2.normalize(phantom(1), None, 0, 255, cv2.NORM_MINMAX), atol=1)


@pytest.mark.parametrize("array", [
    np.zeros((64, 64), bool), np.zeros((64, 64), complex), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3)),
    np.zeros((1, 64, 64), np.uint8), np.zeros((0, 64)), np.zeros((64, 31), np.uint8), np.array("film.png"),
    np.broadcast_to(np.uint8(0), (20_000, 20_000)),
])  # fmt: skip
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(FilmError, match="^array: .+; "):
        mask_rcnn.read_film(array)


def test_settings_are_those_of_the_command_line(bag: mask_rcnn.Bag, weights: list[Path]) -> None:
    settings = ["quality.min_area=0.99", "bag.min_agreement=0.5"]
    strict = mask_rcnn.load_bag(weights[0], settings)
    assert (strict.quality.min_area, bag.quality.min_area) == (0.99, 0.08)
    assert (strict.config.bag.min_agreement, bag.config.bag.min_agreement) == (0.5, 0.95)
    result = mask_rcnn.Bag(bag.members[:1], strict.quality).predict(phantom(1))  # compiled already
    assert math.isnan(result.agreement) and math.isnan(result.risk) and result.measurements["members"] == 1
    assert any(reason.startswith("lungs are small") for reason in result.reasons)
    with pytest.raises(ConfigError, match="training.batch_size"):
        mask_rcnn.load_bag(settings=["training.batch_size=3"])


def test_weights_that_are_not_there() -> None:
    with pytest.raises(ValueError, match=r"no_such.h5: there is no such file or folder; "):
        mask_rcnn.load_bag("no_such.h5")


def test_a_folder_is_evaluated(bag: mask_rcnn.Bag, tmp_path: Path) -> None:
    name = "phantom_0001.png"
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / name).write_bytes((PHANTOMS / kind / name).read_bytes())
    scores = mask_rcnn.evaluate(bag, tmp_path)
    assert scores.judged == "bag by votes" and len(scores.networks) == len(scores.films) == 2 + 2
    assert 0 <= scores.networks[scores.judged]["both"]["dice"]["mean"] < 1
    assert [row["film"] for row in scores.films if row["network"] == scores.judged] == [name]
    (tmp_path / "images" / name).write_bytes(b"")
    with pytest.raises(DatasetError, match="none of its 1 films could be used"):
        mask_rcnn.evaluate(bag, tmp_path)


@pytest.mark.usefixtures("unet_once")
def test_a_dataset_is_built(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "one.png").write_bytes((PHANTOMS / "images" / "phantom_0001.png").read_bytes())
    path = mask_rcnn.build_dataset(tmp_path / "films", tmp_path / "dataset", settings=["quality.min_area=0.01"])
    dataset = json.loads(path.read_text())
    assert path == tmp_path / "dataset" / "dataset.json"
    assert dataset["info"]["quality"]["min_area"] == 0.01 and dataset["info"]["laterality"] == "patient"
    assert dataset["info"]["command"].startswith("mask_rcnn.build_dataset ")
    assert sorted(lung["category_id"] for lung in dataset["annotations"]) == sorted(CATEGORIES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty: no film"):
        mask_rcnn.build_dataset([tmp_path / "empty"], tmp_path / "nothing")
    with pytest.raises(ValueError, match="laterality must be patient or image"):
        mask_rcnn.build_dataset(tmp_path / "films", tmp_path / "other", laterality="left")
    with pytest.raises(ValueError, match="no_such.h5: there is no such file"):
        mask_rcnn.build_dataset(tmp_path / "films", tmp_path / "other", "no_such.h5")


def test_the_import_waits_for_nothing() -> None:
    code = "import sys, mask_rcnn; print(sorted({'keras', 'cv2', 'numpy'} & sys.modules.keys()), dir(mask_rcnn))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("[] [") and "'load_bag'" in run.stdout
    assert all(hasattr(mask_rcnn, name) for name in mask_rcnn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_bags'"):
        mask_rcnn.load_bags  # noqa: B018
