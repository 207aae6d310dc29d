"""The measuring of the quality checks: how films are spoilt, what is drawn that is no chest, and how results are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from script import load_script

from mask_rcnn.checks.quality import ACCEPTED, REJECTED, REVIEW
from mask_rcnn.config import QualityConfig
from mask_rcnn.films.square import resize_labels
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG

ROOT = Path(__file__).resolve().parents[1]
FINE = {
    "lungs": 2, "agreement": 0.97, "area": 0.25, "ratio": 0.8, "side_contact": 0, "shape_distance": 1,
    "likeness": 0.9, "heart_side": 3, "sharpness": 0.1, "aspect": 1,
}  # fmt: skip


SCRIPT, SPOILED, OTHER = (load_script(name) for name in ("measure_quality", "spoiled_films", "other_pictures"))

# These change the film and not where the lungs are.
STILL = {"blur", "noise", "low_contrast", "overexpose", "invert", "white_out", "occlude"}


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A film whose lungs are black and nothing else is, so that its labels can be read off it."""
    labels = np.zeros((200, 160), np.uint8)
    cv2.ellipse(labels, (115, 95), (22, 60), 8, 0, 360, LEFT_LUNG, -1)
    cv2.ellipse(labels, (45, 95), (26, 64), -8, 0, 360, RIGHT_LUNG, -1)
    return np.where(labels > 0, 0, 200).astype(np.uint8), labels


@pytest.mark.parametrize("kind", SPOILED.SPOILERS)
def test_labels_follow_what_moves_the_film(kind: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    film, labels = SPOILED.SPOILERS[kind](*pair, np.random.default_rng(3))
    again, _ = SPOILED.SPOILERS[kind](*pair, np.random.default_rng(3))
    assert film.dtype == labels.dtype == np.uint8 and film.shape == labels.shape
    assert np.array_equal(film, again), "the same seed spoils alike"
    assert film.shape != pair[0].shape or not np.array_equal(film, pair[0])
    if kind == "lateral_like":
        assert not labels.any() and film.min() < 20 < film.max(), "a lung over the other is black, on which none is drawn"
        return
    if kind in STILL:
        assert np.array_equal(labels, pair[1])
        return
    assert set(np.unique(labels)) <= {0, LEFT_LUNG, RIGHT_LUNG}
    inside = cv2.erode((labels > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert inside.any() and (film[inside] < 40).all()
    film_inside = (film > 160) & (labels > 0)
    assert film_inside.mean() < 0.01


def test_turned_and_mirrored_films_keep_the_names_of_the_lungs(pair: tuple[np.ndarray, np.ndarray]) -> None:
    for kind in ("rotate_180", "mirror"):
        _, labels = SPOILED.SPOILERS[kind](*pair, np.random.default_rng(0))
        columns = [np.nonzero(labels == lung)[1].mean() for lung in (LEFT_LUNG, RIGHT_LUNG)]
        assert columns[0] < columns[1], "the patient's left lung is now on the image's left"


@pytest.mark.parametrize("kind", OTHER.PICTURES)
def test_pictures_of_something_else_vary_with_the_seed(kind: str) -> None:
    pictures = [OTHER.PICTURES[kind](np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert all(picture.dtype == np.uint8 and picture.ndim == 2 and picture.std() > 5 for picture in pictures)
    assert np.array_equal(pictures[0], pictures[1])
    assert pictures[0].shape != pictures[2].shape or not np.array_equal(pictures[0], pictures[2])


def row(dice: float | None, **measures: float) -> dict[str, Any]:
    return {"set": "a", "kind": "blur", "film": "f", "dice": dice, "measures": {**FINE, **measures}}


def test_results_are_counted() -> None:
    rows = [
        row(0.97), row(0.96, sharpness=0.0), row(0.85), row(0.5, agreement=0.4, sharpness=0.0),
        row(0.2, likeness=-0.3, agreement=0.1), row(None),
    ]  # fmt: skip
    summary = SCRIPT.summarise(rows, QualityConfig())
    assert summary["films"] == 6
    assert summary["share"] == {ACCEPTED: 0.5, REVIEW: pytest.approx(1 / 3), REJECTED: pytest.approx(1 / 6)}
    assert summary["dice_accepted"] == pytest.approx((0.97 + 0.85) / 2)
    assert summary["dice_not_accepted"] == pytest.approx((0.96 + 0.5 + 0.2) / 3)
    assert (summary["bad"], summary["bad_caught"]) == (3, pytest.approx(2 / 3))
    assert (summary["good"], summary["good_lost"]) == (2, 0.5)
    reasons = SCRIPT.count_reasons(rows, QualityConfig())
    assert reasons == {"blurred": (2, 1), "opinions on the lungs differ": (2, 0), "hardly like a frontal chest film": (1, 0)}
    nothing = SCRIPT.summarise([row(None)], QualityConfig())
    assert nothing["dice_accepted"] is nothing["bad_caught"] is None


def test_dice_is_by_name_and_a_missing_lung_counts_zero(pair: tuple[np.ndarray, np.ndarray]) -> None:
    labels = resize_labels(pair[1], 256, 256)
    lungs = {lung: labels == lung for lung in (LEFT_LUNG, RIGHT_LUNG)}
    assert SCRIPT.dice_by_name(lungs, pair[1]) == 1
    assert SCRIPT.dice_by_name({LEFT_LUNG: lungs[LEFT_LUNG]}, pair[1]) == 0.5
    assert SCRIPT.dice_by_name({LEFT_LUNG: lungs[RIGHT_LUNG], RIGHT_LUNG: lungs[LEFT_LUNG]}, pair[1]) == 0
    assert SCRIPT.dice_by_name({}, np.zeros_like(pair[1])) is None


def test_measures_are_judged_again_without_the_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(0.97, area=0.12), row(0.5, ratio=0.1, area=0.4)]
    (tmp_path / "quality.json").write_text(json.dumps({"films": rows}), encoding="utf-8")
    strict = tmp_path / "strict.yaml"
    strict.write_text("quality: {min_area: 0.2}", encoding="utf-8")
    accepted = []
    for options in ([], ["--config", str(strict)]):
        assert SCRIPT.main(["--out", str(tmp_path), "--again", *options]) == 0
        written = json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))
        accepted.append(written["tables"]["a"]["blur"]["share"].get(ACCEPTED, 0))
    assert accepted == [0.5, 0]
    assert written["thresholds"]["min_area"] == 0.2
    assert "lungs of very different size" in capsys.readouterr().out
