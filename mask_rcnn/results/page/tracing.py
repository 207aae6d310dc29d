"""Outlines of masks as short polygons, for the page.

Shapes
    mask     bool [height, width], one lung
    polygon  list of int, x, y, x, y, ... in pixels of the film
"""

from __future__ import annotations

import cv2
import numpy as np

FINE = 1024  # pixels of the longer side beyond which a mask is traced on every second, third, ... pixel


def trace(mask: np.ndarray) -> list[list[int]]:
    """The outer outlines of a mask's parts, each within a pixel and a half of it, or 0.15 % of the longer side if that is more."""
    step = -(-max(mask.shape) // FINE)
    contours, _ = cv2.findContours(
        np.ascontiguousarray(mask[::step, ::step], np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    return [(step * cv2.approxPolyDP(contour, 0.75, closed=True)).ravel().tolist() for contour in contours]
