"""How well two thumbnails agree where they are laid over each other, many pairs at once.

Shapes
    thumbnails  float32 [pairs, side, side], grey levels 0 to 1
    mappings    float32 [pairs, 4], (scale y, shift y, scale x, shift x): y of the second = scale y * y of the first +
                shift y, both 0 to 1 over their film
    inside      bool [pairs, side, side], the first's pixels that the second shows too
"""

from __future__ import annotations

import numpy as np

# Steps with thumbnails of half the side, which is quick, then at full size; in between those pairs are given up whose plain
# correlation is below this. Two thirds of the candidates that are no copies are, and of the copies one in 1000.
COARSE_STEPS, FINE_STEPS = 3, 2
MIN_CORRELATION = 0.95
MAX_MOVE = 0.05  # of the film, a step
MAX_SCALE = 3.0
MIN_OVERLAP = 0.5  # of the first thumbnail

# The share of the overlap's pixels that is compared, those that agree best: letters, markers and what a stronger
# contrast has clipped may differ.
COMPARED_SHARE = 0.8

GREY_BINS = 256


def agreements(first: np.ndarray, second: np.ndarray, mappings: np.ndarray) -> np.ndarray:
    """How well the second thumbnails agree with the first, laid over them as well as can be.

    A few steps of Lucas and Kanade (IJCAI 1981) improve the mappings; brightness and contrast are free. Then grey levels
    are replaced by their ranks within the overlap, which no change of exposure touches, and correlated.

    Args:
        first: thumbnails.
        second: thumbnails.
        mappings: where to start, wrong by a tenth of the film at most; scales of 1/3 to 3.

    Returns:
        float64 [pairs], 1 for equal thumbnails; 0 for those that were given up.
    """
    halves = _halve(first), _halve(second)
    for _ in range(COARSE_STEPS):
        mappings, correlations = _improve(*halves, mappings)
    result = np.zeros(len(first))
    left = np.flatnonzero(correlations >= MIN_CORRELATION)
    if not len(left):
        return result
    first, second, mappings = _larger_first(first[left], second[left], mappings[left])
    for _ in range(FINE_STEPS):
        mappings, _ = _improve(first, second, mappings)
    moved, inside = sample(second, mappings)
    inside = inside.reshape(len(left), -1)
    ranks, moved_ranks = (_ranks(levels.reshape(len(left), -1), inside) for levels in (first, moved))
    differences = np.where(inside, np.abs(ranks - moved_ranks), np.inf)
    last = (COMPARED_SHARE * inside.sum(1, keepdims=True)).astype(int)
    compared = inside & (differences <= np.take_along_axis(np.sort(differences, 1), last, 1))
    result[left] = _correlations(ranks, moved_ranks, compared)
    return result


def _larger_first(
    first: np.ndarray, second: np.ndarray, mappings: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same pairs turned so that the second shows less than the first: sampled finely, it keeps its detail."""
    turned = mappings[:, 0] * mappings[:, 2] < 1
    scales, shifts = mappings[:, ::2], mappings[:, 1::2]
    inverse = np.stack([1 / scales, -shifts / scales], axis=2).reshape(-1, 4)
    one, other = (np.where(turned[:, None, None], a, b) for a, b in ((second, first), (first, second)))
    return one, other, np.where(turned[:, None], inverse, mappings)


def _halve(thumbnails: np.ndarray) -> np.ndarray:
    rows = thumbnails[:, ::2] + thumbnails[:, 1::2]
    return np.asarray((rows[..., ::2] + rows[..., 1::2]) / 4)


def sample(thumbnails: np.ndarray, mappings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The thumbnails as the mappings show them, float32 [pairs, side, side], bilinear, and which pixels are inside."""
    side = thumbnails.shape[1]
    weights, inside = [], []
    for scale, shift in (mappings[:, :2].T, mappings[:, 2:].T):  # by row and by column: the mapping is separable
        position = scale[:, None] * _centres(side) + shift[:, None]
        index = np.clip(position * side - 0.5, 0, side - 1)
        weights.append(np.maximum(1 - np.abs(index[..., None] - np.arange(side, dtype=np.float32)), 0))
        inside.append((position > 0) & (position < 1))
    return weights[0] @ thumbnails @ weights[1].transpose(0, 2, 1), inside[0][:, :, None] & inside[1][:, None, :]


def _centres(side: int) -> np.ndarray:
    return (np.arange(side, dtype=np.float32) + 0.5) / side


def _improve(first: np.ndarray, second: np.ndarray, mappings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One Gauss-Newton step on the squared differences; the better mappings, and the correlations [pairs] before it."""
    count, side, _ = first.shape
    moved, inside = sample(second, mappings)
    weights = inside.reshape(count, -1).astype(np.float32)
    along_y = (np.gradient(moved, axis=1) * (side / mappings[:, 0, None, None])).reshape(count, -1)
    along_x = (np.gradient(moved, axis=2) * (side / mappings[:, 2, None, None])).reshape(count, -1)
    levels, moved = first.reshape(count, -1), moved.reshape(count, -1)
    y, x = np.repeat(_centres(side), side), np.tile(_centres(side), side)
    # moved + derivatives . move = contrast * levels + brightness, solved for the move, the contrast and the brightness.
    terms = np.stack([along_y * y, along_y, along_x * x, along_x, -levels, -np.ones_like(levels)], axis=1)
    weighted = terms * weights[:, None]
    ridge = 1e-5 * side**2 * np.eye(6, dtype=np.float32)
    solution = np.linalg.solve(weighted @ terms.transpose(0, 2, 1) + ridge, -(weighted @ moved[..., None]))[..., 0]
    better = mappings + np.clip(solution[:, :4], -MAX_MOVE, MAX_MOVE)
    better[:, ::2] = np.clip(better[:, ::2], 1 / MAX_SCALE, MAX_SCALE)
    enough = weights.mean(1) >= MIN_OVERLAP
    return better, np.where(enough, _correlations(levels, moved, weights), 0)


def _ranks(levels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Levels [pairs, pixels] as their mean rank, 0 to 1, among the pixels inside."""
    count = len(levels)
    bins = np.rint(np.clip(levels, 0, 1) * (GREY_BINS - 1)).astype(np.intp) + GREY_BINS * np.arange(count)[:, None]
    counts = np.bincount(bins.ravel(), inside.ravel(), minlength=count * GREY_BINS).reshape(count, GREY_BINS)
    middles = (counts.cumsum(1) - counts / 2) / np.maximum(counts.sum(1, keepdims=True), 1)
    return np.asarray(middles.ravel()[bins])


def _correlations(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each pair of rows, [pairs, pixels] to [pairs]; 0 where a row is constant."""
    total = weights.sum(1, keepdims=True)
    one, other = (values - (weights * values).sum(1, keepdims=True) / np.maximum(total, 1) for values in (one, other))
    product = (weights * one * other).sum(1)
    norm = np.sqrt((weights * one**2).sum(1) * (weights * other**2).sum(1))
    return np.asarray(np.divide(product, norm, out=np.zeros_like(product), where=norm > 1e-9))
