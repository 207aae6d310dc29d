"""The nearest of many points, near enough to exact, in a time that grows much slower than with their square.

Points are sorted into about as many cells as the root of their number, each around one of them (an inverted file: Jégou,
Douze, Schmid, Product Quantization for Nearest Neighbor Search, IEEE TPAMI 2011, without the quantization). A point is
compared with the cells nearest to it alone.

Shapes
    points  float32 [points, dimensions]
"""

from __future__ import annotations

import numpy as np

CELLS_SEARCHED = 6  # of those nearest to a point
ROUNDS = 3  # of k-means, on a part of the points
A_CELL = 32  # points of that part
BLOCK = 4096  # points at a time


class Cells:
    """Points, sorted by the cell they are nearest to. The same points in the same order make the same cells."""

    def __init__(self, points: np.ndarray) -> None:
        count = max(1, round(len(points) ** 0.5))
        rng = np.random.default_rng(0)
        some = points[np.sort(rng.choice(len(points), min(len(points), count * A_CELL), replace=False))]
        self.centres = some[np.sort(rng.choice(len(some), count, replace=False))]
        for _ in range(ROUNDS):
            cells = self._nearest_cells(some, 1)[:, 0]
            sums = np.stack([np.bincount(cells, column, count) for column in some.T.astype(np.float64)], axis=1)
            sizes = np.bincount(cells, minlength=count)[:, None]
            self.centres = np.where(sizes, sums / np.maximum(sizes, 1), self.centres).astype(np.float32)
        cells = self._nearest_cells(points, 1)[:, 0]
        self.order = np.argsort(cells, kind="stable")
        self.points = points[self.order]
        self.starts = np.searchsorted(cells[self.order], np.arange(count + 1))

    def _nearest_cells(self, points: np.ndarray, count: int) -> np.ndarray:
        """The numbers of the cells nearest to each point, int [points, count], in no order."""
        blocks = [points[k : k + BLOCK] for k in range(0, len(points), BLOCK)]
        return np.concatenate([_smallest(_distances(block, self.centres), count) for block in blocks])

    def nearest(self, points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of places, of these points and of those in the cells nearest to them.

        Args:
            points: what is searched for.
            count: how many of each, at most, of every cell that is searched; then of them all.

        Returns:
            Places in ``points`` and places of the nearest, int [pairs] each.
        """
        probes = self._nearest_cells(points, min(CELLS_SEARCHED, len(self.centres)))
        places = np.full((len(points), probes.shape[1], count), -1, np.int32)
        distances = np.full(places.shape, np.inf, np.float32)
        order = np.argsort(probes.ravel(), kind="stable")
        starts = np.searchsorted(probes.ravel()[order], np.arange(len(self.centres) + 1))
        for cell in range(len(self.centres)):
            first, last = self.starts[cell : cell + 2]
            of_cell = order[starts[cell] : starts[cell + 1]]
            if first == last or not len(of_cell):
                continue
            for k in range(0, len(of_cell), BLOCK):
                query, probe = np.divmod(of_cell[k : k + BLOCK], probes.shape[1])
                found = _distances(points[query], self.points[first:last])
                columns = _smallest(found, min(count, last - first))
                distances[query, probe, : columns.shape[1]] = np.take_along_axis(found, columns, 1)
                places[query, probe, : columns.shape[1]] = self.order[first + columns]
        flat = distances.reshape(len(points), -1)
        best = np.take_along_axis(places.reshape(flat.shape), _smallest(flat, min(count, flat.shape[1])), 1)
        one = np.repeat(np.arange(len(points)), best.shape[1])
        return one[best.ravel() >= 0], best.ravel()[best.ravel() >= 0]


def _distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Half the squared distances, less what is the same for all others of a point, float32 [points, others]."""
    products = points @ others.T
    np.subtract(np.square(others).sum(1) / 2, products, out=products)
    return np.asarray(products)


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Columns of the smallest values of each row, int [rows, count], in no order."""
    if count == 1:
        return np.asarray(values.argmin(1)[:, None])
    if count >= values.shape[1]:
        return np.tile(np.arange(values.shape[1]), (len(values), 1))
    return np.asarray(np.argpartition(values, count - 1, axis=1)[:, :count])
