"""How well predicted lungs agree with annotated ones: overlap and distance.

Shapes
    mask    bool [height, width], one lung or both
    labels  uint8 [height, width], 0 background, else the category id
    box     (y1, x1, y2, x2) pixels, the lower right corner outside

A measure that is undefined, as overlap is where both masks are empty, is NaN: a 1 would reward a film for
showing nothing. Average with ``np.nanmean`` and report how many films were undefined.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.spatial import KDTree

from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.utils import compute_overlaps, dice, mask_box

__all__ = ["box_iou", "dice", "iou", "laterality_swapped", "surface_distances"]


def iou(mask_a: np.ndarray, mask_b: np.ndarray) -> float:
    """The shared area over the united one (Jaccard, New Phytologist 11, 1912); NaN where both are empty."""
    union = int(np.count_nonzero(np.logical_or(mask_a, mask_b)))
    return int(np.count_nonzero(np.logical_and(mask_a, mask_b))) / union if union else float("nan")


def box_iou(box_a: Sequence[float], box_b: Sequence[float]) -> float:
    """The intersection over union of two boxes: 0 to 1, NaN where both are empty."""
    boxes = np.array([box_a, box_b], np.float64)
    if not (boxes[:, 2:] > boxes[:, :2]).all(1).any():
        return float("nan")
    return float(compute_overlaps(boxes[:1], boxes[1:])[0, 0])


def surface_distances(
    mask_a: np.ndarray, mask_b: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[float, float]:
    """How far the outlines of two masks lie apart.

    The outline of a mask is its pixels of which one of the four neighbours, or the film's edge, lies outside.

    Args:
        mask_a: bool [height, width].
        mask_b: bool [height, width].
        spacing: of the rows and of the columns; (1, 1) gives pixels, the detector's pitch in mm gives mm.

    Returns:
        hausdorff95: the greater of the 95th percentiles of the distances from either outline to the nearest
            point of the other (ranked as by Huttenlocher, Klanderman and Rucklidge, IEEE PAMI 15, 1993).
        mean: of those distances, over the points of both outlines (average symmetric surface distance;
            Heimann et al., IEEE TMI 28, 2009).
        Both are NaN where a mask is empty: Dice shows that the lung was missed, no distance can.
    """
    mask_a, mask_b = mask_a.astype(bool), mask_b.astype(bool)
    if not mask_a.any() or not mask_b.any():
        return float("nan"), float("nan")
    y1, x1, y2, x2 = mask_box(mask_a | mask_b)  # outside it there is no outline to measure to
    # Outlines are thousands of points, films millions of pixels: a tree is five times as fast as a distance transform.
    points_a, points_b = (np.argwhere(_outline(mask[y1:y2, x1:x2])) * spacing for mask in (mask_a, mask_b))
    from_a, from_b = KDTree(points_b).query(points_a)[0], KDTree(points_a).query(points_b)[0]
    hausdorff95 = max(np.percentile(from_a, 95), np.percentile(from_b, 95))
    return float(hausdorff95), float(np.concatenate([from_a, from_b]).mean())


def _outline(mask: np.ndarray) -> np.ndarray:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask & (inner == 0))


def laterality_swapped(found_labels: np.ndarray, true_labels: np.ndarray) -> bool:
    """Whether a found lung shares more pixels with the other annotated lung than with its namesake."""
    for lung, other in ((LEFT_LUNG, RIGHT_LUNG), (RIGHT_LUNG, LEFT_LUNG)):
        annotated = true_labels[found_labels == lung]
        if np.count_nonzero(annotated == other) > np.count_nonzero(annotated == lung):
            return True
    return False
