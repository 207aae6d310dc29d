"""The risk that a bag failed: its traits, its regression, and what it holds against wrong masks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from script import load_script

from mask_rcnn.bag.risk import SIDE, TABLE, TRAITS, RiskTable, film_risk, risk_table, small_masks, stretched, traits_of
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.radiograph import read_film, read_labels
from mask_rcnn.films.square import resize_labels
from mask_rcnn.lungs import CATEGORIES

PHANTOMS = sorted((Path(__file__).parent.parent / "data" / "phantoms" / "images").glob("*"))[:4]
SCORES = np.full((5, 2), 0.99, np.float32)


def phantom(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A film, and its lungs as five members would have found them."""
    labels = resize_labels(read_labels(path.parent.parent / "masks" / f"{path.stem}.png"), SIDE, SIDE)
    masks = np.array([labels == category for category in CATEGORIES]).astype(np.uint8) * 255
    return stretched(equalise(read_film(path))), np.stack([masks] * 5)


def test_the_table_is_of_these_traits_and_finite() -> None:
    table = risk_table()
    assert json.loads(TABLE.read_text())["traits"] == list(TRAITS)
    assert table.mean.shape == table.deviation.shape == (len(TRAITS),) and table.weights.shape == (3 * len(TRAITS),)
    assert (table.deviation > 0).all() and np.isfinite(table.weights).all()


def test_the_regression_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    mean, deviation, weights = rng.normal(size=3), rng.uniform(0.5, 2, 3), rng.normal(size=9)
    traits = rng.normal(0, 3, (2, 3))
    for given, risk in zip(traits, RiskTable(mean, deviation, weights, -0.3).of_lungs(traits), strict=True):
        total = -0.3
        for k in range(3):
            scaled = min(max((given[k] - mean[k]) / deviation[k], -4), 4)
            total += weights[k] * scaled + weights[3 + k] * min(scaled, 0) ** 2 + weights[6 + k] * max(scaled, 0) ** 2
        assert risk == pytest.approx(1 / (1 + math.exp(-total)))


@pytest.mark.parametrize("path", PHANTOMS, ids=lambda path: path.stem)
def test_a_mirrored_film_has_the_traits_of_the_other_side(path: Path) -> None:
    film, masks = phantom(path)
    mirrored = traits_of(film[:, ::-1], masks[:, ::-1, :, ::-1], SCORES)
    np.testing.assert_allclose(mirrored[::-1], traits_of(film, masks, SCORES), atol=1e-6)


@pytest.mark.parametrize("path", PHANTOMS, ids=lambda path: path.stem)
def test_a_lung_cut_short_by_all_members_is_a_risk(path: Path) -> None:
    film, masks = phantom(path)
    usual = film_risk(film, masks, SCORES)
    for lung in range(2):
        rows = np.flatnonzero(masks[0, lung].any(axis=1))
        cut = masks.copy()
        cut[:, lung, rows[len(rows) // 2] :] = 0
        assert film_risk(film, cut, SCORES) > 0.5 > usual


def test_members_that_differ_are_a_risk_and_a_missing_lung_is_a_certain_one() -> None:
    film, masks = phantom(PHANTOMS[0])
    usual = film_risk(film, masks, SCORES)
    moved = masks.copy()
    for member in range(5):
        moved[member] = [np.roll(mask, 4 * (member - 2), axis=0) for mask in moved[member]]
    assert film_risk(film, moved, SCORES) > usual
    scores = SCORES.copy()
    scores[:, 1], masks[:, 1] = 0, 0
    assert film_risk(film, masks, scores) == 1.0
    assert math.isnan(film_risk(film, masks[:1], SCORES[:1])), "one network has nobody to agree with"


@pytest.mark.parametrize("value", [0, 255])
def test_traits_are_finite_whatever_was_found(value: int) -> None:
    empty = np.full((5, 2, SIDE, SIDE), value, np.uint8)
    assert np.isfinite(traits_of(np.full((SIDE, SIDE), value, np.uint8), empty, SCORES)).all()


def test_the_best_detection_of_each_lung_counts() -> None:
    soft = np.zeros((SIDE, SIDE, 3), np.float32)
    soft[10:20, :, 0], soft[30:40, :, 1], soft[50:60, :, 2] = 0.25, 0.5, 1
    one = {"class_ids": np.array([2, 1, 2]), "scores": np.float32([0.6, 0.9, 0.8]), "masks": soft}
    none = {"class_ids": np.zeros(0, int), "scores": np.zeros(0, np.float32), "masks": soft[..., :0]}
    masks, scores = small_masks([one, none])
    np.testing.assert_array_equal(scores, np.float32([[0.9, 0.8], [0, 0]]))
    assert masks[0, 0, 35, 5] == 128 and masks[0, 1, 55, 5] == 255 and masks[0, 1, 15, 5] == 0 and not masks[1].any()


def test_the_fit_finds_what_makes_lungs_fail() -> None:
    script = load_script("fit_risk")
    rng = np.random.default_rng(1)
    traits = rng.normal(size=(400, len(TRAITS)))
    traits[:, 3] = rng.choice([-1.5, 0.5], 400)
    dice = np.where(traits[:, 3] < -1, 0.8, 0.96)
    dice[0] = np.nan
    table = script.fit(traits, dice, np.ones(400))
    risks = table.of_lungs(traits)
    assert risks[dice < 0.9].min() > risks[dice > 0.9].max()
    assert np.abs(table.weights[3]) == np.abs(table.weights[: len(TRAITS)]).max()


def test_the_fit_does_not_see_the_films_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script("fit_risk")
    rng = np.random.default_rng(2)
    film, masks = phantom(PHANTOMS[0])
    films, groups = np.stack(40 * [film]), np.array([f"patient {k}" for k in range(40)])
    found = np.stack([np.roll(masks, shift, axis=2) for shift in rng.integers(0, 40, 40)])
    dice, held = rng.choice([0.8, 0.97], (40, 2)), np.arange(40) % 4 == 0
    tables = []
    for of_held in (0.8, 0.97):
        some = np.where(held[:, None], of_held, dice)
        np.savez(tmp_path / "set.npz", films=films, masks=found, scores=np.stack(40 * [SCORES]), groups=groups,
                 dice=some, held=held)
        monkeypatch.setattr(script, "TABLE", tmp_path / "risk.json")
        assert script.main(["--predictions", str(tmp_path), "--write"]) == 0
        tables.append((tmp_path / "risk.json").read_bytes())
        assert "held out     10 films" in capsys.readouterr().out
    assert tables[0] == tables[1]
    np.savez(tmp_path / "set.npz", films=films, masks=found, scores=np.stack(40 * [SCORES]), groups=groups, dice=dice,
             held=np.ones(40, bool))
    assert script.main(["--predictions", str(tmp_path)]) == 1
    assert "too few patients not held out (0 of 5 folds have any)" in capsys.readouterr().err


def test_a_film_of_another_size_is_stretched() -> None:
    film = cv2.resize(np.tile(np.arange(256, dtype=np.uint8), (256, 1)), (300, 500))
    assert stretched(film).shape == (SIDE, SIDE)
