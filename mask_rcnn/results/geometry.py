"""The geometry of a lung: its outline's length and its landmarks.

Shapes
    mask   bool [height, width], one lung, not empty
    point  (row, column) of a pixel's centre, the first one at 0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from mask_rcnn.lungs import RIGHT_LUNG
from mask_rcnn.utils import mask_box


class Steps(NamedTuple):
    """How often a lung's outer outline goes from a pixel to the next one: its length for any spacing."""

    vertical: int
    horizontal: int
    diagonal: int


def outline_steps(mask: np.ndarray) -> Steps:
    """The steps along a lung's outer outline, through the centres of its outermost pixels; of all parts together."""
    y1, x1, y2, x2 = mask_box(mask)
    contours, _ = cv2.findContours(mask[y1:y2, x1:x2].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    counts = np.zeros(4, np.int64)
    for contour in contours:
        points = contour[:, 0]
        moved = np.abs(points - np.roll(points, 1, axis=0))  # OpenCV's points are (column, row)
        counts += np.bincount(moved[:, 1] + 2 * moved[:, 0], minlength=4)
    return Steps(*(int(count) for count in counts[1:]))


def outline_length(steps: Sequence[int], spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """The length of an outline of these ``Steps``; the spacing (1, 1) gives pixels, millimetres give millimetres."""
    vertical, horizontal, diagonal = steps
    return vertical * spacing[0] + horizontal * spacing[1] + diagonal * math.hypot(*spacing)


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
    lung = mask[y1:y2, x1:x2]
    is_on_image_left = (category == RIGHT_LUNG) == (laterality == "patient")
    rows = np.flatnonzero(lung.any(axis=1))
    # Of each row its most lateral pixel alone can be the point.
    inset = (lung if is_on_image_left else lung[:, ::-1])[rows].argmax(axis=1)
    lateral = x2 - x1 - 1 - inset
    best = int(np.argmax(rows / max(y2 - y1 - 1, 1) + lateral / max(x2 - x1 - 1, 1)))
    column = inset[best] if is_on_image_left else lateral[best]
    return float(y1 + rows[best]), float(x1 + column)
