"""Label masks, probabilities and pictures as PNG; pictures as JPEG too.

Shapes
    labels   uint8 [height, width], 0 background, else the category id
    picture  uint8 [height, width, 3], RGB
    mean     float32 [height, width], probabilities of one lung
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mask_rcnn.lungs import CATEGORIES

FULL_SCALE = 65535  # of probabilities in 16 bits


def label_png(labels: np.ndarray, laterality: str) -> bytes:
    """A label mask as grey PNG, whose text chunks name the labels."""
    note = PngInfo()
    note.add_text("labels", ", ".join(f"{category} {name}" for category, name in CATEGORIES.items()))
    note.add_text("laterality", laterality)
    return _png(labels, note)


def probability_png(mean: np.ndarray, category: int, laterality: str) -> bytes:
    """A lung's probabilities as grey PNG of 16 bits: 0 is 0 and 65535 is 1, as its text chunks say."""
    note = PngInfo()
    note.add_text("probability", f"of {CATEGORIES[category]}, times {FULL_SCALE}")
    note.add_text("laterality", laterality)
    return _png(np.rint(mean * FULL_SCALE).astype(np.uint16), note)


def picture_png(picture: np.ndarray) -> bytes:
    """A grey or an RGB picture, uint8 [height, width] or [height, width, 3], as PNG."""
    # Pillow tries all filters a row, which takes as long again and makes a picture of a film no smaller.
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    ordered = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", ordered, settings)[1].tobytes()


def picture_jpeg(picture: np.ndarray, quality: int = 85) -> bytes:
    """A grey or an RGB picture as JPEG, a few times smaller."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)  # halved colours blur thin outlines
    return buffer.getvalue()


def _png(pixels: np.ndarray, note: PngInfo) -> bytes:
    buffer = io.BytesIO()
    # Level 3 is four times as fast as Pillow's 6 and a tenth larger.
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=note, compress_level=3)
    return buffer.getvalue()
