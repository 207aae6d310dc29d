"""A film's row of measurements.csv beside what plain loops give, and the spacing that files beside films hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import film_of, ten_bit, write_dicom

import mask_rcnn
from mask_rcnn.bag.lung import Lung, label_mask
from mask_rcnn.bag.vote import mean_masks
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.radiograph import Radiograph
from mask_rcnn.films.sidecar import read_sidecar
from mask_rcnn.films.spacing import Calibration
from mask_rcnn.films.square import stretch_to_square
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG, SIDES
from mask_rcnn.results.records import KEYS, result_record
from mask_rcnn.results.tables import COLUMNS, measurements
from mask_rcnn.utils import mask_box

SPACING = (0.5, 0.25)
FILM = Radiograph(film_of(64, 48), SPACING, calibration=Calibration("ImagerPixelSpacing", magnification=1.1))


def lungs_of() -> dict[int, Lung]:
    """A left lung with a corner cut off, and a right one that touches the film's top and left."""
    left, right = np.zeros((64, 48), bool), np.zeros((64, 48), bool)
    left[10:40, 28:42], right[0:36, 0:15] = True, True
    left[10:20, 28:32] = False
    return {key: Lung(mask, mask_box(mask), 0.9, 2, 0.8) for key, mask in ((LEFT_LUNG, left), (RIGHT_LUNG, right))}


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    return measurements({"result": "film.png", **record}, 7, "film.png", "patient", 2, [])


@pytest.fixture
def record() -> dict[str, Any]:
    lungs = lungs_of()
    square = stretch_to_square(FILM.pixels)
    record = result_record(FILM, equalise(FILM.pixels), square, False, lungs, label_mask(lungs, (64, 48)), 2, "patient")
    return json.loads(json.dumps(record))  # as the journal has it


def test_a_row_equals_plain_loops(record: dict[str, Any]) -> None:
    row, bright = row_of(record), equalise(FILM.pixels)
    assert set(row) <= set(COLUMNS)
    intensities = []
    for category, lung in lungs_of().items():
        of_lung = {column: row[f"{SIDES[category]}_{column}"] for column in (
            "edges", "area_mm2", "height_mm", "width_mm", "perimeter_px", "perimeter_mm", "apex_y", "apex_x", "apex_y_mm",
            "apex_x_mm", "costophrenic_y", "costophrenic_x", "costophrenic_y_mm", "costophrenic_x_mm", "intensity",
        )}  # fmt: skip
        y1, x1, y2, x2 = lung.box
        assert of_lung["area_mm2"] == pytest.approx(lung.mask.sum() * 0.5 * 0.25, abs=0.006)
        assert of_lung["height_mm"] == (y2 - y1) * 0.5 and of_lung["width_mm"] == (x2 - x1) * 0.25
        for point in ("apex", "costophrenic"):
            y, x = of_lung[f"{point}_y"], of_lung[f"{point}_x"]
            assert lung.mask[int(y), int(x)]
            assert of_lung[f"{point}_y_mm"] == pytest.approx(y * 0.5, abs=0.006)
            assert of_lung[f"{point}_x_mm"] == pytest.approx(x * 0.25, abs=0.006)
        assert of_lung["intensity"] == pytest.approx(float(bright[lung.mask].mean()), abs=0.0006)
        intensities.append(of_lung["intensity"])
    assert row["left_right_intensity_difference"] == pytest.approx(intensities[0] - intensities[1], abs=0.001)
    assert (row["left_edges"], row["right_edges"]) == (None, "top left")
    assert row["right_perimeter_px"] == 2 * (35 + 14) and row["right_perimeter_mm"] == 2 * (35 * 0.5 + 14 * 0.25)
    assert (row["left_costophrenic_y"], row["left_costophrenic_x"]) == (39, 41)
    assert (row["right_costophrenic_y"], row["right_costophrenic_x"]) == (35, 0)
    assert (row["left_apex_y"], row["left_apex_x"]) == (10, 36.5)
    assert [row[key] for key in ("spacing_y_mm", "spacing_x_mm", "spacing_source", "calibration", "magnification")] == [
        0.5, 0.25, "ImagerPixelSpacing", None, 1.1
    ]


def test_without_a_spacing_there_are_pixels_alone(record: dict[str, Any]) -> None:
    row, full = row_of(record | {"spacing": None, "calibration": None}), row_of(record)
    differing = {column for column in COLUMNS if row.get(column) != full.get(column)}
    assert differing == {column for column in COLUMNS if "mm" in column or column in ("spacing_source", "magnification")}
    assert all(row.get(column) is None for column in differing)


def test_records_of_older_programs_give_what_they_hold(record: dict[str, Any]) -> None:
    old = {key: value for key, value in record.items() if key in KEYS}
    of_a_lung = ("score", "votes", "agreement", "area", "centroid", "box", "segmentation")
    old["lungs"] = {key: {name: lung[name] for name in of_a_lung} for key, lung in record["lungs"].items()}
    row, full = row_of(old), row_of(record)
    lacking = {column for column in COLUMNS if full.get(column) is not None and row.get(column) is None}
    assert {column for column in COLUMNS if row.get(column) is not None} == {
        column for column in COLUMNS if full.get(column) is not None
    } - lacking
    assert all(row[column] == full[column] for column in row if row[column] is not None)
    assert "left_perimeter_px" in lacking and "right_intensity" in lacking and "left_area_px" not in lacking


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"spacing_mm": [0.175, 0.2]}', ((0.175, 0.2), Calibration("spacing_mm"))),
        ('{"PixelSpacing": [0.1, 0.2], "PixelSpacingCalibrationType": "fiducial "}',
         ((0.1, 0.2), Calibration("PixelSpacing", "FIDUCIAL"))),
        ('{"ImagerPixelSpacing": [0.2, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25}',
         ((0.16, 0.08), Calibration("ImagerPixelSpacing", magnification=1.25))),
        ('{"shapes": [], "version": "5.0"}', (None, None)),
        ('[0.1, 0.2]', (None, None)),
        ('{"spacing_mm": [0.1', (None, None)),
        ('{"spacing_mm": [0.1, 0]}', "its spacing_mm is no spacing; "),
        ('{"spacing_mm": null, "PixelSpacing": [0.1, 0.1]}', "its spacing_mm is no spacing; "),
        ('{"PixelSpacing": "0.1"}', "its PixelSpacing is no spacing; "),
    ],
)  # fmt: skip
def test_sidecars(tmp_path: Path, content: str, expected: Any) -> None:
    (tmp_path / "film.1.json").write_text(content)
    if isinstance(expected, str):
        with pytest.raises(FilmError) as caught:
            read_sidecar(tmp_path / "film.1.png")
        assert str(caught.value).startswith(f"{tmp_path / 'film.1.json'}: {expected}")
    else:
        assert read_sidecar(tmp_path / "film.1.png") == expected
    assert read_sidecar(tmp_path / "other.png") == (None, None)


def test_python_reads_the_file_beside_a_film_where_its_own_gives_no_spacing(tmp_path: Path) -> None:
    given = {"PixelSpacing": [0.5, 0.4], "PixelSpacingCalibrationType": "GEOMETRY"}
    for name, attributes in (("own", given), ("none", {}), ("alone", {})):
        write_dicom(tmp_path / f"{name}.dcm", ten_bit(film_of()), "MONOCHROME2", 10, **attributes)
    for name in ("own", "none"):
        (tmp_path / f"{name}.json").write_text('{"spacing_mm": [0.2, 0.2]}')
    films = {name: mask_rcnn.read_film(tmp_path / f"{name}.dcm") for name in ("own", "none", "alone")}
    assert (films["own"].spacing, films["own"].calibration) == ((0.5, 0.4), ("PixelSpacing", "GEOMETRY", None))
    assert (films["none"].spacing, films["none"].calibration) == ((0.2, 0.2), ("spacing_mm", "", None))
    assert films["alone"].spacing is films["alone"].calibration is None


def test_averaged_masks_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(5)
    members = []
    for ids, scores in (([1, 2, 1], [0.9, 0.8, 0.95]), ([2], [0.7]), ([], [])):
        masks = rng.random((4, 5, len(ids)), np.float32)
        members.append({"class_ids": np.array(ids), "scores": np.array(scores), "masks": masks})
    means = mean_masks(members)
    assert means.keys() == {1, 2} and all(mean.dtype == np.float32 for mean in means.values())
    np.testing.assert_array_equal(means[1], members[0]["masks"][..., 2])
    np.testing.assert_allclose(means[2], (members[0]["masks"][..., 1] + members[1]["masks"][..., 0]) / 2, atol=1e-7)
    assert mean_masks(members[2:]) == {} and not math.isnan(float(means[1].sum()))
