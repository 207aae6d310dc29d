"""Charts over epochs and the sheet of predictions, by their pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.results import curves
from mask_rcnn.results.curves import Chart, Line, render_charts, ticks
from mask_rcnn.results.drawing import LUNG_COLOURS
from mask_rcnn.results.predictions import GAP, LINE, SIDE, Example, render_examples

RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (1, 30, [5, 10, 15, 20, 25, 30]), (1, 3, [1, 1.5, 2, 2.5, 3]),
     (0, 0.00042, [0, 1e-4, 2e-4, 3e-4, 4e-4]), (0, 7.3, [0, 2, 4, 6])],
)  # fmt: skip
def test_ticks_are_round_and_few(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def near(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of pixels of about this colour."""
    return np.argwhere(np.abs(picture.astype(int) - colour).max(axis=-1) < 40)


def test_a_line_runs_where_its_values_lie() -> None:
    rising = Line("rising", RED, {1: 0.0, 2: 0.5, 3: 1.0})
    flat = Line("flat", BLUE, {1: 0.25, 2: math.nan, 3: 0.25})
    picture = render_charts([Chart("one", [rising, flat], (0.0, 1.0)), Chart("two", [])], 1, marked=2, mark="best")
    assert picture.shape == (2 * curves.HEIGHT, curves.WIDTH, 3)
    plot = picture[curves.TOP : curves.HEIGHT - curves.BOTTOM + 1, curves.LEFT :]
    height, width = plot.shape[0] - 1, curves.WIDTH - curves.LEFT - curves.RIGHT
    for row, column in near(plot, RED):
        assert abs(row / height - (1 - column / width)) < 0.03
    rows = near(plot, BLUE)
    assert np.abs(rows[:, 0] / height - 0.75).max() < 0.02 and len(set(rows[:, 1])) > 0.95 * width
    assert len(near(plot[:, [width // 2]], curves.MARK)) > 0.8 * height


def test_one_epoch_and_no_value_are_charts_too() -> None:
    picture = render_charts([Chart("one", [Line("a", RED, {7: 3.0})]), Chart("none", [Line("b", BLUE, {})])], 2)
    assert picture.shape == (curves.HEIGHT, 2 * curves.WIDTH, 3) and len(near(picture[curves.TOP :], RED)) > 10


def test_films_stand_twice_with_their_outlines() -> None:
    film, left = np.full((64, 64), 90, np.uint8), np.zeros((64, 64), bool)
    left[16:48, 36:56] = True
    nothing = np.zeros_like(left)
    example = Example("a_name_that_is_much_too_long_to_stand_above_its_film.png", film,
                      {LEFT_LUNG: left, RIGHT_LUNG: nothing}, {LEFT_LUNG: nothing, RIGHT_LUNG: left})
    sheet = render_examples([example] * 3)
    assert sheet.shape == (LINE + 2 * (SIDE + LINE + GAP), 2 * (2 * SIDE + 3 * GAP), 3)
    first = sheet[2 * LINE : 2 * LINE + SIDE, GAP : GAP + SIDE]
    second = sheet[2 * LINE : 2 * LINE + SIDE, 2 * GAP + SIDE : 2 * (GAP + SIDE)]
    for part, category in ((first, LEFT_LUNG), (second, RIGHT_LUNG)):
        outline = near(part, LUNG_COLOURS[category])
        assert len(outline) > 300
        assert np.abs(outline.min(0) - (64, 144)).max() < 4 and np.abs(outline.max(0) - (191, 223)).max() < 4
        other = LUNG_COLOURS[RIGHT_LUNG if category == LEFT_LUNG else LEFT_LUNG]
        assert not len(near(part, other))
