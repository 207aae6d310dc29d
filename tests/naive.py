"""The fast operations again, box by box and pixel by pixel: what the tests hold ``utils`` and ``layers`` to.

Boxes are (y1, x1, y2, x2), the lower right corner outside the box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes; 0 where both are empty."""
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return height * width / union if union > 0 else 0.0


def painted_iou(a: Sequence[int], b: Sequence[int], side: int) -> float:
    """The same for whole pixels of a square, by painting both boxes and counting."""
    first, second = np.zeros((side, side), bool), np.zeros((side, side), bool)
    first[a[0] : a[2], a[1] : a[3]] = True
    second[b[0] : b[2], b[1] : b[3]] = True
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0


def encode(box: Sequence[float], target: Sequence[float]) -> list[float]:
    """(dy, dx, log dh, log dw) from a box to a target (Girshick et al., R-CNN, CVPR 2014, appendix C)."""
    height, width = box[2] - box[0], box[3] - box[1]
    target_height, target_width = target[2] - target[0], target[3] - target[1]
    return [
        ((target[0] + target[2]) / 2 - (box[0] + box[2]) / 2) / height,
        ((target[1] + target[3]) / 2 - (box[1] + box[3]) / 2) / width,
        math.log(target_height / height),
        math.log(target_width / width),
    ]


def move(box: Sequence[float], delta: Sequence[float]) -> list[float]:
    """The inverse of ``encode``."""
    height, width = box[2] - box[0], box[3] - box[1]
    y, x = (box[0] + box[2]) / 2 + delta[0] * height, (box[1] + box[3]) / 2 + delta[1] * width
    height, width = height * math.exp(delta[2]), width * math.exp(delta[3])
    return [y - height / 2, x - width / 2, y + height / 2, x + width / 2]


def move_all(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] moved by deltas [n, 4], each by its own."""
    return np.array([move(box, delta) for box, delta in zip(boxes.tolist(), deltas.tolist(), strict=True)])


def cut(box: Sequence[float], window: Sequence[float]) -> list[float]:
    """A box cut to a window."""
    limits = [(window[0], window[2]), (window[1], window[3])] * 2
    return [min(max(value, low), high) for value, (low, high) in zip(box, limits, strict=True)]


def suppress(
    boxes: np.ndarray, scores: np.ndarray, count: int, threshold: float, classes: np.ndarray | None = None
) -> list[int]:
    """Indices of the boxes that greedy non-maximum suppression keeps, by falling score; equal scores in their order."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: -scores[index]):
        rivals = [other for other in kept if classes is None or classes[other] == classes[index]]
        if len(kept) < count and all(iou(boxes[index], boxes[other]) <= threshold for other in rivals):
            kept.append(index)
    return kept


def sample(values: np.ndarray, y: float, x: float) -> np.ndarray:
    """values [h, w, ...] read bilinearly at a point, zero beyond the edges: [...]."""
    total = np.zeros(values.shape[2:])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < values.shape[0] and 0 <= column < values.shape[1]:
                total += values[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def crop(values: np.ndarray, box: Sequence[float], side: int) -> np.ndarray:
    """``side`` x ``side`` samples from corner to corner of a normalised box; zero outside the map [h, w, ...]."""
    height, width = values.shape[:2]
    cropped = np.zeros((side, side, *values.shape[2:]))
    for row in range(side):
        for column in range(side):
            y = (box[0] + (box[2] - box[0]) * row / (side - 1)) * (height - 1)
            x = (box[1] + (box[3] - box[1]) * column / (side - 1)) * (width - 1)
            if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                cropped[row, column] = sample(values, y, x)
    return cropped


def random_boxes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Boxes float32 [*shape, 4] inside the unit square, none empty."""
    corners = np.sort(rng.uniform(0, 1, (*shape, 2, 2)), axis=-2)
    corners[..., 1, :] += 0.01
    return (corners.reshape(*shape, 4) / 1.01).astype(np.float32)
