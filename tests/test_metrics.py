"""Every measure against a naive loop over pixels, and at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mask_rcnn.evaluation.overlap import box_iou, dice, iou, laterality_swapped, surface_distances
from mask_rcnn.evaluation.roc import roc_area, youden_threshold
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG


def random_mask(rng: np.random.Generator, shape: tuple[int, int] = (17, 23)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for _ in range(3):
        top, left = rng.integers(0, shape[0] - 2), rng.integers(0, shape[1] - 2)
        mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = True
    return mask


def naive_counts(mask_a: np.ndarray, mask_b: np.ndarray) -> tuple[int, int, int]:
    count_a = count_b = shared = 0
    for y in range(mask_a.shape[0]):
        for x in range(mask_a.shape[1]):
            count_a += bool(mask_a[y, x])
            count_b += bool(mask_b[y, x])
            shared += bool(mask_a[y, x]) and bool(mask_b[y, x])
    return count_a, count_b, shared


def naive_outline(mask: np.ndarray) -> list[tuple[int, int]]:
    height, width = mask.shape
    points = []
    for y in range(height):
        for x in range(width):
            neighbours = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [0 <= ny < height and 0 <= nx < width and bool(mask[ny, nx]) for ny, nx in neighbours]
            if mask[y, x] and not all(inside):
                points.append((y, x))
    return points


def naive_surface_distances(
    mask_a: np.ndarray, mask_b: np.ndarray, spacing: tuple[float, float]
) -> tuple[float, float]:
    outlines = naive_outline(mask_a), naive_outline(mask_b)
    directed = []
    for points, others in (outlines, outlines[::-1]):
        nearest = [
            min(math.hypot((y - v) * spacing[0], (x - u) * spacing[1]) for v, u in others) for y, x in points
        ]
        directed.append(sorted(nearest))

    def percentile95(values: list[float]) -> float:
        rank = 0.95 * (len(values) - 1)
        low = math.floor(rank)
        high = min(low + 1, len(values) - 1)
        return values[low] + (rank - low) * (values[high] - values[low])

    together = directed[0] + directed[1]
    return max(percentile95(values) for values in directed), sum(together) / len(together)


@pytest.mark.parametrize("seed", range(8))
def test_overlaps_agree_with_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask_a, mask_b = random_mask(rng), random_mask(rng)
    count_a, count_b, shared = naive_counts(mask_a, mask_b)
    assert dice(mask_a, mask_b) == pytest.approx(2 * shared / (count_a + count_b))
    assert iou(mask_a, mask_b) == pytest.approx(shared / (count_a + count_b - shared))
    assert dice(mask_a, mask_b) == dice(mask_b, mask_a)


def test_overlaps_take_labels_and_bytes_as_masks() -> None:
    mask = random_mask(np.random.default_rng(0))
    assert dice(mask.astype(np.uint8) * 255, mask) == 1.0
    assert iou(mask.astype(np.uint8) * 2, mask) == 1.0


def test_overlaps_of_empty_masks() -> None:
    empty, full = np.zeros((5, 6), bool), np.ones((5, 6), bool)
    assert math.isnan(dice(empty, empty)) and math.isnan(iou(empty, empty))
    assert dice(empty, full) == 0 and iou(empty, full) == 0
    assert dice(full, full) == 1 and iou(full, full) == 1


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("seed", range(8))
def test_surface_distances_agree_with_all_pairs(seed: int, spacing: tuple[float, float]) -> None:
    rng = np.random.default_rng(seed)
    mask_a, mask_b = random_mask(rng), random_mask(rng)
    expected = naive_surface_distances(mask_a, mask_b, spacing)
    assert surface_distances(mask_a, mask_b, spacing) == pytest.approx(expected)
    assert surface_distances(mask_b, mask_a, spacing) == pytest.approx(expected)


def test_surface_distances_of_a_shifted_square() -> None:
    mask_a, mask_b = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    mask_a[10:20, 10:20] = mask_b[10:20, 13:23] = True
    hausdorff95, mean = surface_distances(mask_a, mask_b)
    assert hausdorff95 == 3
    assert 0 < mean < 3
    in_mm = surface_distances(mask_a, mask_b, (0.25, 0.25))
    assert in_mm == pytest.approx((hausdorff95 / 4, mean / 4))


def test_surface_distances_at_the_film_edge() -> None:
    whole = np.ones((8, 9), bool)
    assert surface_distances(whole, whole) == (0, 0)
    point = np.zeros((8, 9), bool)
    point[4, 4] = True
    assert surface_distances(whole, point) == pytest.approx(naive_surface_distances(whole, point, (1, 1)))


def test_surface_distances_are_undefined_where_a_mask_is_empty() -> None:
    empty, full = np.zeros((5, 6), bool), np.ones((5, 6), bool)
    for pair in ((empty, empty), (empty, full), (full, empty)):
        assert all(math.isnan(value) for value in surface_distances(*pair))


@pytest.mark.parametrize("seed", range(8))
def test_box_iou_agrees_with_painted_boxes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    painted, boxes = [], []
    for _ in range(2):
        y1, x1 = rng.integers(0, 12, 2)
        y2, x2 = y1 + rng.integers(1, 12), x1 + rng.integers(1, 12)
        mask = np.zeros((24, 24), bool)
        mask[y1:y2, x1:x2] = True
        painted.append(mask)
        boxes.append((int(y1), int(x1), int(y2), int(x2)))
    assert box_iou(*boxes) == pytest.approx(iou(*painted))


def test_box_iou_of_empty_and_touching_boxes() -> None:
    assert math.isnan(box_iou((0, 0, 0, 0), (0, 0, 0, 0)))
    assert box_iou((0, 0, 0, 0), (0, 0, 4, 4)) == 0
    assert box_iou((0, 0, 4, 4), (0, 4, 4, 8)) == 0
    assert box_iou((0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.5, 1.0)) == pytest.approx(0.5)


def test_laterality_swapped() -> None:
    true = np.zeros((10, 20), np.uint8)
    true[2:8, 12:18], true[2:8, 2:8] = LEFT_LUNG, RIGHT_LUNG
    mirrored = true[:, ::-1]
    assert not laterality_swapped(true, true)
    assert laterality_swapped(mirrored, true)

    only_left = np.where(true == LEFT_LUNG, true, 0)
    assert not laterality_swapped(only_left, true)
    assert laterality_swapped(only_left[:, ::-1], true)
    only_right = np.where(true == RIGHT_LUNG, true, 0)
    assert laterality_swapped(only_right[:, ::-1], true)
    assert not laterality_swapped(np.zeros_like(true), true)
    assert not laterality_swapped(true, np.zeros_like(true))


def test_laterality_is_not_swapped_at_a_tie() -> None:
    true = np.zeros((4, 8), np.uint8)
    true[:, :4], true[:, 4:] = RIGHT_LUNG, LEFT_LUNG
    found = np.zeros_like(true)
    found[:, 2:6] = LEFT_LUNG
    assert not laterality_swapped(found, true)
    found[:, 1:6] = LEFT_LUNG
    assert laterality_swapped(found, true)


@pytest.mark.parametrize("seed", range(8))
def test_roc_area_agrees_with_counting_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Of few levels, so that there are many ties.
    failures, others = rng.integers(0, 6, rng.integers(1, 20)) / 5, rng.integers(1, 8, rng.integers(1, 30)) / 5
    won = sum(1.0 if f < o else 0.5 if f == o else 0.0 for f in failures for o in others)
    assert roc_area(failures, others) == pytest.approx(won / (len(failures) * len(others)))


def test_roc_area_at_its_ends() -> None:
    low, high, none = np.array([0.1, 0.2]), np.array([0.3, 0.9, 0.9]), np.zeros(0)
    assert roc_area(low, high) == 1 and roc_area(high, low) == 0 and roc_area(high, high) == 0.5
    assert math.isnan(roc_area(none, high)) and math.isnan(roc_area(low, none))


@pytest.mark.parametrize("seed", range(8))
def test_youden_threshold_is_as_good_as_any(seed: int) -> None:
    rng = np.random.default_rng(seed)
    failures, others = rng.integers(0, 12, 15) / 10, rng.integers(4, 16, 25) / 10

    def gain(threshold: float) -> float:
        return np.mean(failures < threshold) - np.mean(others < threshold)

    threshold = youden_threshold(failures, others)
    assert gain(threshold) == pytest.approx(max(gain(value) for value in np.arange(-0.05, 1.7, 0.1)))
    assert threshold not in failures and threshold not in others


def test_youden_threshold_of_known_values() -> None:
    # Below 0.65 lie three of four failures and none of the others; the fourth would cost two others.
    failures, others = np.array([0.0, 0.5, 0.6, 0.85]), np.array([0.7, 0.8, 0.9, 0.95])
    assert youden_threshold(failures, others) == pytest.approx(0.65)
    # 0.15 and 0.35 are as good: the lower sends fewer films to review.
    assert youden_threshold(np.array([0.1, 0.3]), np.array([0.2, 0.4])) == pytest.approx(0.15)
    assert youden_threshold(np.array([0.9]), np.array([0.1, 0.2])) == 0.1, "what tells nothing sends no film to review"
    assert math.isnan(youden_threshold(np.zeros(0), others)) and math.isnan(youden_threshold(failures, np.zeros(0)))
