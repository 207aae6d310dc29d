"""A lung's outline and landmarks, beside shapes whose measures are known and beside plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.results.geometry import apex, costophrenic_point, outline_length, outline_steps


def perimeter(mask: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    return outline_length(outline_steps(mask), spacing)


def disc(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius - 2 : radius + 3, -radius - 2 : radius + 3]
    return y**2 + x**2 <= radius**2


def test_the_perimeter_of_known_shapes() -> None:
    rectangle = np.zeros((30, 40), bool)
    rectangle[5:15, 10:31] = True
    assert perimeter(rectangle) == pytest.approx(2 * (9 + 20))
    assert perimeter(rectangle, (0.5, 0.2)) == pytest.approx(2 * (9 * 0.5 + 20 * 0.2))
    rectangle[20:23, 10:13] = True  # a second part, 3 x 3
    assert perimeter(rectangle) == pytest.approx(2 * (9 + 20) + 8)
    # Steps of 1 and sqrt(2) along a circle are 5 % longer than its arc (8 (sqrt(2) - 1) / pi is 1.0548).
    assert 1.0 < perimeter(disc(200)) / (2 * math.pi * 200) < 1.06
    single = np.zeros((5, 5), bool)
    single[2, 2] = True
    assert perimeter(single) == 0
    corner = np.eye(3, dtype=bool)  # there and back
    assert outline_steps(corner) == (0, 0, 4) and perimeter(corner, (3.0, 4.0)) == 4 * 5


def test_a_hole_does_not_count_in_the_perimeter() -> None:
    ring = disc(20)
    full = perimeter(ring)
    ring[20:24, 20:24] = False
    assert perimeter(ring) == full


def test_landmarks_equal_plain_loops() -> None:
    rng = np.random.default_rng(3)
    for _ in range(30):
        mask = rng.random((rng.integers(2, 20), rng.integers(2, 20))) < 0.3
        if not mask.any():
            continue
        points = [(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
        ys, xs = [y for y, _ in points], [x for _, x in points]
        top = [x for y, x in points if y == min(ys)]
        assert apex(mask) == (min(ys), sum(top) / len(top))
        height, width = max(max(ys) - min(ys), 1), max(max(xs) - min(xs), 1)
        for category, lateral in ((LEFT_LUNG, lambda x: x - min(xs)), (RIGHT_LUNG, lambda x: max(xs) - x)):
            best = max((y - min(ys)) / height + lateral(x) / width for y, x in points)
            y, x = costophrenic_point(mask, category)
            assert mask[int(y), int(x)] and (y - min(ys)) / height + lateral(x) / width == pytest.approx(best)
            assert costophrenic_point(mask, LEFT_LUNG + RIGHT_LUNG - category, "image") == (y, x)


def test_the_costophrenic_point_of_a_lung_with_a_sharp_angle() -> None:
    lung = np.zeros((60, 40), bool)
    for row in range(10, 50):
        lung[row, 8 : 20 + row // 4] = True
    lung[50:58, 28:33] = True  # the recess, below and lateral
    assert costophrenic_point(lung, LEFT_LUNG) == (57, 32)
    assert costophrenic_point(lung[:, ::-1], RIGHT_LUNG) == (57, 39 - 32)
