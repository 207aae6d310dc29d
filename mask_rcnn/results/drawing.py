"""Colours and outlines of the lungs, the same in every picture that the commands render.

Shapes
    picture  uint8 [height, width, 3], RGB
    lung     bool [height, width], one instance
"""

from __future__ import annotations

import cv2
import numpy as np

from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG

# Orange and blue of Okabe and Ito's palette (Color Universal Design, 2008): distinct in every kind of colour vision.
LUNG_COLOURS = {LEFT_LUNG: (0xE6, 0x9F, 0x00), RIGHT_LUNG: (0x00, 0x72, 0xB2)}

LEGENDS = {  # by laterality
    "patient": "left lung = the patient's left, on the image's right",
    "image": "lungs named by image side: left lung = on the image's left",
}


def outline_lung(picture: np.ndarray, lung: np.ndarray, category: int) -> None:
    """Outlines a lung in its colour, in place."""
    contours, _ = cv2.findContours(lung.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, LUNG_COLOURS[category], 2, cv2.LINE_AA)
