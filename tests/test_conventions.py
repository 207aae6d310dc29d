"""Both conventions of drawing a lung: the lateral third against a naive loop, and what of a drawing is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mask_rcnn.bag.lung import Lung
from mask_rcnn.dataset.conventions import (
    CONVENTIONS,
    HEART_DRAWN_IN,
    HEART_LEFT_OUT,
    TABLE,
    UNKNOWN,
    convention_of,
    known_labels,
    lateral_band,
)  # fmt: skip
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.evaluation.lateral import lateral_dice, measure_thirds
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.utils import mask_box

SIZE = 40, 60


def naive_band(drawn: np.ndarray, category: int, share: float) -> np.ndarray:
    """Pixel by pixel, as ``../shared/data/README.md`` words it."""
    height, width = drawn.shape
    drawn_rows = [row for row in range(height) if drawn[row].any()]
    band = np.zeros(drawn.shape, bool)
    for row in range(height):
        nearest = min(drawn_rows, key=lambda other: (abs(other - row), other))
        columns = [column for column in range(width) if drawn[nearest, column]]
        start, end = min(columns), max(columns) + 1
        for column in range(width):
            if category == LEFT_LUNG:  # its lateral edge lies on the image's right
                band[row, column] = column + 0.5 >= end - share * (end - start)
            else:
                band[row, column] = column + 0.5 <= start + share * (end - start)
    return band


def blob(rng: np.random.Generator) -> np.ndarray:
    """A ragged lung with a gap between its rows."""
    drawn = np.zeros(SIZE, bool)
    for row in range(int(rng.integers(3, 12)), int(rng.integers(25, 38))):
        start = int(rng.integers(5, 30))
        drawn[row, start : start + int(rng.integers(1, 28))] = rng.random() < 0.9
    drawn[15:18] = False
    return drawn


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("share", [0.35, 0.5, 1.0])
def test_the_lateral_band_is_that_of_a_naive_loop(category: int, share: float) -> None:
    rng = np.random.default_rng(category)
    for _ in range(10):
        drawn = blob(rng)
        assert drawn.any()
        np.testing.assert_array_equal(lateral_band(drawn, category, share), naive_band(drawn, category, share))


def test_at_the_limit_a_pixel_counts_by_its_centre() -> None:
    drawn = np.zeros((1, 30), bool)
    drawn[0, 5:15] = True  # 10 wide: the limit lies at 15 - 3.5 = 11.5, the centre of pixel 11
    assert np.flatnonzero(lateral_band(drawn, LEFT_LUNG)[0]).min() == 11
    assert np.flatnonzero(lateral_band(drawn, RIGHT_LUNG)[0]).max() == 8
    assert lateral_band(np.zeros_like(drawn), LEFT_LUNG).all()


def test_within_the_third_the_inner_edge_does_not_count_and_the_rest_does() -> None:
    drawn = np.zeros(SIZE, bool)
    drawn[10:30, 20:40] = True  # the band begins at column 33
    heart_left_out = drawn.copy()
    heart_left_out[20:30, 20:33] = False
    assert lateral_dice(heart_left_out, drawn, LEFT_LUNG) == 1
    beyond_the_edge, below_the_base, short = drawn.copy(), drawn.copy(), drawn.copy()
    beyond_the_edge[10:30, 40:47] = True
    below_the_base[30:40, 20:40] = True
    short[25:] = False
    assert lateral_dice(beyond_the_edge, drawn, LEFT_LUNG) == pytest.approx(2 * 7 / (7 + 14))
    assert lateral_dice(below_the_base, drawn, LEFT_LUNG) == pytest.approx(2 * 20 / (20 + 30))
    assert lateral_dice(short, drawn, LEFT_LUNG) == pytest.approx(2 * 15 / (15 + 20))
    assert math.isnan(lateral_dice(np.zeros(SIZE, bool), np.zeros(SIZE, bool), LEFT_LUNG))


def test_the_thirds_of_a_film() -> None:
    drawn = np.zeros(SIZE, np.uint8)
    drawn[10:30, 35:55], drawn[10:30, 5:25] = LEFT_LUNG, RIGHT_LUNG
    right = drawn == RIGHT_LUNG
    row = measure_thirds({RIGHT_LUNG: Lung(right, mask_box(right), 0.9, 1, math.nan)}, drawn)
    assert row == {"third_left": 0, "third_right": 1}
    swapped = measure_thirds({LEFT_LUNG: Lung(right, mask_box(right), 0.9, 1, math.nan)}, drawn)
    assert swapped == {"third_left": 0, "third_right": 0}


def test_known_are_the_lateral_part_of_each_lung_and_what_lies_outside() -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[10:30, 30:50], labels[10:30, 5:25] = LEFT_LUNG, RIGHT_LUNG
    heart = np.zeros(SIZE, bool)
    heart[25:35, 20:45] = True
    known = known_labels(labels, heart, 0.4)
    assert (known[10:25, 42:50] == LEFT_LUNG).all() and (known[10:25, 5:13] == RIGHT_LUNG).all()
    assert (known[10:25, 30:42] == UNKNOWN).all() and (known[10:30, 13:25] == UNKNOWN).all()
    assert (known[25:30, 42:45] == UNKNOWN).all() and (known[25:30, 45:50] == LEFT_LUNG).all()
    assert (known[labels == 0] == 0).all()  # where a heart lies outside of the drawn lungs it is background
    assert (known_labels(labels)[25:30, 43:50] == LEFT_LUNG).all()
    assert labels.max() == RIGHT_LUNG  # the drawing stays


def test_who_tells_the_convention(tmp_path: Path) -> None:
    folder = tmp_path / "v7_children"
    folder.mkdir()
    (folder / "dataset.json").write_text("{}")
    assert convention_of(folder) == convention_of(folder / "dataset.json") == HEART_DRAWN_IN
    assert convention_of(tmp_path) == HEART_LEFT_OUT
    (folder / "convention.txt").write_text(f"{HEART_LEFT_OUT}\n")
    assert convention_of(folder) == HEART_LEFT_OUT
    (folder / "convention.txt").write_text("heart drawn\n")
    with pytest.raises(DatasetError, match="convention.txt: says 'heart drawn'; write heart left out or heart drawn in"):
        convention_of(folder)
    assert TABLE.is_file() and len(set(CONVENTIONS)) == 2
