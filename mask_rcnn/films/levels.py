"""A film's grey levels: checking and equalising them.

Shapes
    film    uint8 [height, width] or [height, width, channels], 0 black (air) to 255 white (bone)
"""

from __future__ import annotations

import cv2
import numpy as np


def check_levels(film: np.ndarray) -> None:
    """Raises a TypeError for a film that is not uint8: floats in [0, 1] would become black, 16 bits wrap around."""
    kind = getattr(film, "dtype", type(film).__name__)
    if kind != np.uint8:
        raise TypeError(f"films must be uint8 grey levels, not {kind}; see read_film or to_8_bit")


def equalise(film: np.ndarray) -> np.ndarray:
    """Spreads the grey levels of a uint8 film evenly over 0 to 255, with one histogram over all its channels.

    Level v becomes floor(255 (C(v) - C(lowest)) / (N - C(lowest))), where C is the cumulative histogram and
    N the number of pixels (Gonzalez and Woods, Digital Image Processing, section 3.3). A film of one level becomes 0.

    Raises:
        TypeError: it is not uint8.
    """
    check_levels(film)
    rows = np.ascontiguousarray(film).reshape(len(film), -1)
    cumulative = np.cumsum(_histogram(rows))
    lowest = cumulative[np.flatnonzero(cumulative)[0]]
    spread = cumulative[-1] - lowest
    if spread == 0:
        return np.zeros_like(film)
    table = np.clip((cumulative - lowest) * 255 // spread, 0, 255).astype(np.uint8)
    return cv2.LUT(rows, table).reshape(film.shape)


def _histogram(rows: np.ndarray) -> np.ndarray:
    """How many pixels of uint8 [height, n] have each of the 256 levels, int64."""
    # OpenCV's is five times as fast as NumPy's; it counts in float32, which is exact below 2**24.
    step = max(1, 2**24 // rows.shape[1])
    counts = np.zeros(256, np.int64)
    for start in range(0, len(rows), step):
        counts += cv2.calcHist([rows[start : start + step]], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    return counts
