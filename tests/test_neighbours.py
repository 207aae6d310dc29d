"""The nearest of many points: those that comparing all finds, but for a few."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from mask_rcnn.films.duplicates import mean_ranks
from mask_rcnn.films.neighbours import Cells


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.standard_normal((4000, 8)).astype(np.float32)


def test_points_close_by_are_found(points: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    moved = points + 0.05 * rng.standard_normal(points.shape).astype(np.float32)
    one, other = Cells(points).nearest(moved, 4)
    assert (np.bincount(one[one == other], minlength=len(points)) == 1).mean() > 0.99


def test_most_of_the_nearest_are_found_and_none_twice(points: np.ndarray) -> None:
    one, other = Cells(points).nearest(points, 5)
    found = set(zip(one.tolist(), other.tolist(), strict=True))
    assert len(found) == len(one) == 5 * len(points)
    _, nearest = cKDTree(points).query(points, 5)
    wanted = {(k, int(place)) for k, places in enumerate(nearest) for place in places}
    assert len(found & wanted) > 0.75 * len(wanted)


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_of_few_points_all_are_found(points: np.ndarray, count: int) -> None:
    one, other = Cells(points[:count]).nearest(points[:2], 20)
    assert set(zip(one.tolist(), other.tolist(), strict=True)) == {(k, place) for k in range(2) for place in range(count)}


def test_equal_points_share_a_cell() -> None:
    one, other = Cells(np.zeros((50, 4), np.float32)).nearest(np.zeros((1, 4), np.float32), 50)
    assert one.tolist() == [0] * 50 and sorted(other) == list(range(50))


def test_ranks_are_scipys_ties_and_all() -> None:
    rng = np.random.default_rng(5)
    for levels in (1, 2, 40, 10**6):
        values = rng.integers(0, levels, 1024).astype(np.float32)
        np.testing.assert_array_equal(mean_ranks(values), rankdata(values))
