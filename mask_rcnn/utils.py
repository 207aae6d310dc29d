"""Boxes, anchors and masks in NumPy: the arithmetic around the network.

Shapes
    boxes    [n, 4], (y1, x1, y2, x2), the lower right corner outside the box
    deltas   [n, 4], (dy, dx, log dh, log dw), Girshick et al., R-CNN, CVPR 2014, appendix C
    anchors  float32 [anchors, 4] pixels of the square, ordered by level, row, column, ratio
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from mask_rcnn.config import NetworkConfig
from mask_rcnn.films.levels import check_levels
from mask_rcnn.films.square import fit_to_square, stretch

# Strides of the pyramid levels P2 to P6 in pixels (Lin et al., Feature Pyramid Networks, CVPR 2017).
PYRAMID_STRIDES = (4, 8, 16, 32, 64)

ROWS_AT_ONCE = 64  # of a film, onto which a mask is pasted: on 2,000 pixels a quarter of the time of all rows at once

# Anchors this like an instance are positive, this unlike every instance negative (Ren et al., Faster R-CNN, NIPS 2015).
POSITIVE_ANCHOR_IOU = 0.7
NEGATIVE_ANCHOR_IOU = 0.3


def compute_overlaps(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """The intersection over union of every box of [n, 4] with every box of [m, 4]: [n, m]; 0 where both are empty."""
    top = np.maximum(boxes_a[:, None, 0], boxes_b[None, :, 0])
    left = np.maximum(boxes_a[:, None, 1], boxes_b[None, :, 1])
    bottom = np.minimum(boxes_a[:, None, 2], boxes_b[None, :, 2])
    right = np.minimum(boxes_a[:, None, 3], boxes_b[None, :, 3])
    shared = np.maximum(bottom - top, 0) * np.maximum(right - left, 0)
    areas_a = (boxes_a[:, 2] - boxes_a[:, 0]) * (boxes_a[:, 3] - boxes_a[:, 1])
    areas_b = (boxes_b[:, 2] - boxes_b[:, 0]) * (boxes_b[:, 3] - boxes_b[:, 1])
    union = areas_a[:, None] + areas_b[None, :] - shared
    shares = np.zeros(union.shape, np.result_type(union, np.float32))
    return np.asarray(np.divide(shared, union, out=shares, where=union > 0))


def box_refinement(boxes: np.ndarray, gt_boxes: np.ndarray) -> np.ndarray:
    """The deltas that move boxes [n, 4] onto ground truth boxes [n, 4]; float32, not scaled. Boxes must not be empty."""
    boxes, gt_boxes = boxes.astype(np.float32), gt_boxes.astype(np.float32)
    size, gt_size = boxes[:, 2:] - boxes[:, :2], gt_boxes[:, 2:] - gt_boxes[:, :2]
    centre, gt_centre = boxes[:, :2] + 0.5 * size, gt_boxes[:, :2] + 0.5 * gt_size
    return np.concatenate([(gt_centre - centre) / size, np.log(gt_size / size)], axis=1)


def norm_boxes(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels to normalised: the pixel in the film's last row and column is at 1; float32 [n, 4]."""
    height, width = shape
    scale = np.array([height - 1, width - 1, height - 1, width - 1])
    return np.asarray(((boxes - np.array([0, 0, 1, 1])) / scale).astype(np.float32))


def denorm_boxes(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Normalised to whole pixels of a film of ``shape`` (height, width); int32 [n, 4], the inverse of ``norm_boxes``."""
    height, width = shape
    scale = np.array([height - 1, width - 1, height - 1, width - 1])
    return np.asarray(np.around(boxes * scale + np.array([0, 0, 1, 1])).astype(np.int32))


def pyramid_anchors(image_size: int, scales: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """One anchor a ratio in every cell of the five levels, float32 [anchors, 4] pixels.

    An anchor of scale s and ratio r is s / sqrt(r) high and s sqrt(r) wide, centred on its cell's upper left corner.
    """
    levels = []
    for scale, stride in zip(scales, PYRAMID_STRIDES, strict=True):
        half = np.stack([scale / np.sqrt(ratios), scale * np.sqrt(ratios)], axis=1) / 2
        steps = np.arange(0, image_size, stride)
        centres = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1)[:, :, None]
        levels.append(np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def match_anchors(
    anchors: np.ndarray,
    gt_boxes: np.ndarray,
    anchors_per_image: int,
    box_std: Sequence[float],
    rng: np.random.Generator | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The class of each anchor, and the deltas of the positive ones.

    Positive are the anchors of IoU 0.7 or more with an instance and the best ones of each instance; negative the others
    below 0.3. At most half of ``anchors_per_image`` stay positive, and all that stay are ``anchors_per_image``.

    Args:
        anchors: [anchors, 4] pixels.
        gt_boxes: [instances, 4] pixels; none is allowed.
        anchors_per_image: positive and negative ones together.
        box_std: the deltas are divided by these four.
        rng: samples those that stay; None keeps all.

    Returns:
        int8 [anchors]: 1 positive, -1 negative, 0 neutral; float32 [anchors_per_image, 4]: the deltas of the positive
        anchors in their order, zeros behind them (without ``rng`` those that find room).
    """
    match = np.full(len(anchors), -1, np.int8)
    deltas = np.zeros((anchors_per_image, 4), np.float32)
    if len(gt_boxes):
        overlaps = compute_overlaps(anchors, gt_boxes)
        nearest = overlaps.argmax(1)
        best = overlaps[np.arange(len(anchors)), nearest]
        match[best >= NEGATIVE_ANCHOR_IOU] = 0
        # Every instance gets an anchor, however badly it fits; all that tie for it.
        match[np.nonzero((overlaps == overlaps.max(0)) & (overlaps > 0))[0]] = 1
        match[best >= POSITIVE_ANCHOR_IOU] = 1
    if rng is not None:
        positive = np.flatnonzero(match == 1)
        surplus = len(positive) - anchors_per_image // 2
        if surplus > 0:
            match[rng.choice(positive, surplus, replace=False)] = 0
        negative = np.flatnonzero(match == -1)
        surplus = len(negative) - (anchors_per_image - int((match == 1).sum()))
        if surplus > 0:
            match[rng.choice(negative, surplus, replace=False)] = 0
    positive = np.flatnonzero(match == 1)[:anchors_per_image]
    if len(positive):
        deltas[: len(positive)] = box_refinement(anchors[positive], gt_boxes[nearest[positive]]) / np.asarray(box_std)
    return match, deltas


class MoldedFilm(NamedTuple):
    """A film as a network takes it."""

    image: np.ndarray  # float32 [image_size, image_size, 3], the mean pixel subtracted
    window: tuple[int, int, int, int]  # (y1, x1, y2, x2) pixels of the image, where the film lies
    scale: float  # image over film


def mold_film(film: np.ndarray, network: NetworkConfig) -> MoldedFilm:
    """Makes a film ready for a network, fitted to its square, three channels.

    Args:
        film: uint8 [height, width] or [height, width, 3], already equalised.

    Raises:
        TypeError: it is not uint8.
    """
    check_levels(film)
    square, window, scale = fit_to_square(film, network.image_size)
    return MoldedFilm(subtract_mean(square, network), window, scale)


def subtract_mean(square: np.ndarray, network: NetworkConfig) -> np.ndarray:
    """A fitted film, uint8 [side, side] or [side, side, 3], as float32 [side, side, 3] less the mean pixel."""
    if square.ndim == 2:
        square = square[..., None]
    return square.astype(np.float32) - np.asarray(network.mean_pixel, np.float32)


def paste_mask(mask: np.ndarray, box: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """Stretches a mask over its box as the reference does: probabilities [m, m] to probabilities [height, width].

    The box (y1, x1, y2, x2) is in whole pixels of the film; what of it lies outside the film is cut off. ``place_mask``
    explains its error.
    """
    full = np.zeros(shape, np.float32)
    y1, x1, y2, x2 = (int(value) for value in box)
    top, left, bottom, right = max(y1, 0), max(x1, 0), min(y2, shape[0]), min(x2, shape[1])
    if bottom <= top or right <= left:
        return full
    inside = stretch(mask, y2 - y1, x2 - x1)
    full[top:bottom, left:right] = inside[top - y1 : bottom - y1, left - x1 : right - x1]
    return full


def place_mask(
    mask: np.ndarray, box: Sequence[float], window: Sequence[int], side: int, target: np.ndarray
) -> tuple[slice, slice]:
    """Samples a mask at the middle of every pixel of the film: probabilities [m, m] to those of [height, width].

    It inverts how the targets of the mask head are cropped, from the first to the last row and column of a box, without
    rounding to pixels. The reference's ``paste_mask`` rounds the box to pixels of the film and begins half a cell further
    in, so that its masks are smaller than their targets by 1/28 of the box.

    Args:
        mask: [m, m], m at least 2.
        box: (y1, x1, y2, x2), normalised to the square.
        window: (y1, x1, y2, x2) pixels: where the film lies in the square.
        side: of the square.
        target: [height, width], of the film, written to within the box: float32 gets the probabilities, bool whether they
            are one half or more.

    Returns:
        The rows and columns of the film that lie in the box.
    """
    cells, weights, inside, above = len(mask), [], [], []
    for axis in (0, 1):
        pixels, first, last = target.shape[axis], window[axis], window[axis + 2]
        in_square = (np.arange(pixels) + 0.5) * ((last - first) / pixels) + first - 0.5
        start, end = box[axis] * (side - 1), box[axis + 2] * (side - 1)
        # A box ends half a pixel behind its last pixel's middle.
        inside.append(slice(*np.searchsorted(in_square, (start - 0.5, end + 0.5)).tolist()))
        in_mask = np.clip((in_square[inside[axis]] - start) * ((cells - 1) / max(end - start, 1e-6)), 0, cells - 1)
        # Bilinear sampling is a product with hat functions, one a cell, of which two reach a pixel.
        near = np.minimum(in_mask.astype(np.intp), cells - 2)
        hats = np.zeros((len(near), cells), np.float32)
        for cell in (near, near + 1):
            hats[np.arange(len(near)), cell] = 1 - np.abs(in_mask - cell)
        weights.append(hats)
        above.append(near)
    across = mask.astype(np.float32) @ weights[1].T
    rows, place = weights[0], target[inside[0], inside[1]]
    for start in range(0, len(rows), ROWS_AT_ONCE):  # near rows of the film lie between a few rows of the mask
        near = above[0][start : start + ROWS_AT_ONCE]
        used = slice(near[0], near[-1] + 2)
        values = rows[start : start + ROWS_AT_ONCE, used] @ across[used]
        place[start : start + ROWS_AT_ONCE] = values >= 0.5 if target.dtype == bool else values
    return inside[0], inside[1]


def window_to_film(boxes: np.ndarray, window: Sequence[int], square: int, shape: tuple[int, int]) -> np.ndarray:
    """Boxes normalised to the square [n, 4] as whole pixels of the film that lay in ``window``; int32 [n, 4]."""
    y1, x1, y2, x2 = norm_boxes(np.asarray(window, np.float32)[None], (square, square))[0]
    shift = np.array([y1, x1, y1, x1], np.float32)
    scale = np.array([y2 - y1, x2 - x1, y2 - y1, x2 - x1], np.float32)
    return denorm_boxes((boxes - shift) / scale, shape)


def dice(mask_a: np.ndarray, mask_b: np.ndarray) -> float:
    """Twice the shared area over the sum of both (Dice, Ecology 26, 1945); NaN where both are empty."""
    both = int(np.count_nonzero(mask_a)) + int(np.count_nonzero(mask_b))
    return 2 * int(np.count_nonzero(np.logical_and(mask_a, mask_b))) / both if both else float("nan")


def centroid(mask: np.ndarray) -> tuple[float, float]:
    """The mean row and column of the pixels of a mask that is not empty."""
    pixels = mask.astype(np.uint8)
    lines = (cv2.reduce(pixels, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().astype(np.int64) for axis in (1, 0))
    row, column = (float(counts @ np.arange(len(counts)) / counts.sum()) for counts in lines)
    return row, column


def row_edges(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of a mask that are not empty, and in each the first column of the mask and the one after its last."""
    rows = np.flatnonzero(mask.any(axis=1))
    return rows, mask[rows].argmax(axis=1), mask.shape[1] - mask[rows, ::-1].argmax(axis=1)


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight box (y1, x1, y2, x2) of a mask; (0, 0, 0, 0) for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
