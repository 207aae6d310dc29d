"""The geometry of a lung: its outline's length and its landmarks.

Shapes
    mask   bool [height, width], one lung, not empty
    point  (row, column) of a pixel's centre, the first one at 0
"""

from __future__ import annotations

import cv2
import numpy as np

from mask_rcnn.lungs import RIGHT_LUNG
from mask_rcnn.utils import mask_box


def perimeter(mask: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """The length of a lung's outer outline, through the centres of its outermost pixels; of all parts together.

    Args:
        spacing: between rows and between columns; (1, 1) gives pixels, millimetres give millimetres.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    length = 0.0
    for contour in contours:
        points = contour[:, 0, ::-1] * np.asarray(spacing, np.float64)  # OpenCV's points are (column, row)
        length += float(np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1).sum())
    return length


def apex(mask: np.ndarray) -> tuple[float, float]:
    """The highest point of a lung: the middle of its uppermost row of pixels."""
    top = mask_box(mask)[0]
    return float(top), float(np.flatnonzero(mask[top]).mean())


def costophrenic_point(mask: np.ndarray, category: int, laterality: str = "patient") -> tuple[float, float]:
    """The lower lateral corner of a lung: the pixel that lies lowest and most lateral, both in shares of the lung's box.

    On a lung with a sharp costophrenic angle it is the angle's tip; a blunted angle moves it up and inwards.

    Args:
        category: the lung's id; the patient's right lung has its lateral side on the image's left.
        laterality: ``image`` where lungs are named by image side, the other way round.
    """
    y1, x1, y2, x2 = mask_box(mask)
    rows, columns = np.nonzero(mask[y1:y2, x1:x2])
    is_on_image_left = (category == RIGHT_LUNG) == (laterality == "patient")
    lateral = x2 - x1 - 1 - columns if is_on_image_left else columns
    best = int(np.argmax(rows / max(y2 - y1 - 1, 1) + lateral / max(x2 - x1 - 1, 1)))
    return float(y1 + rows[best]), float(x1 + columns[best])
