"""The heart on a film, of what a U-Net predicts.

Shapes
    probability  float32 [height, width]
    heart        bool [height, width]
"""

from __future__ import annotations

import cv2
import numpy as np

from create_dataset.lungs import fill_holes, parts_of


def one_heart(probability: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """The largest part above one half, filled and widened by a share of the side: empty where none is."""
    largest = next(parts_of(probability > 0.5), None)
    if largest is None:
        return np.zeros(probability.shape, bool)
    heart = fill_holes(largest)
    radius = round(margin * len(probability))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(heart.astype(np.uint8), kernel) > 0
