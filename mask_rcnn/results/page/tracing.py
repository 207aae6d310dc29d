"""Outlines of masks as short polygons, for the page.

Shapes
    mask     bool [height, width], one lung
    polygon  list of int, x, y, x, y, ... in pixels of the film
"""

from __future__ import annotations

import cv2
import numpy as np

FINE = 1024  # pixels of the longer side beyond which a mask is traced on every second, third, ... pixel


def trace(mask: np.ndarray, box: tuple[int, int, int, int] | None = None) -> list[list[int]]:
    """The outer outlines of a mask's parts, each within a pixel and a half of it, or 0.15 % of the longer side if that is more.

    Args:
        mask: bool [height, width].
        box: (y1, x1, y2, x2) pixels outside which it is empty; by default the whole film.
    """
    step = -(-max(mask.shape) // FINE)
    y1, x1, y2, x2 = box or (0, 0, *mask.shape)
    top, left = y1 // step, x1 // step
    small = mask[top * step : y2 : step, left * step : x2 : step].astype(np.uint8, copy=False)
    # Run lengths are by column, and so is a decoded mask: OpenCV turns it five times as fast as NumPy.
    by_rows = cv2.transpose(np.ascontiguousarray(small.T)) if mask.flags.f_contiguous else np.ascontiguousarray(small)
    contours, _ = cv2.findContours(by_rows, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))
    return [(step * cv2.approxPolyDP(contour, 0.75, closed=True)).ravel().tolist() for contour in contours]
