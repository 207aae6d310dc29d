"""Label masks, probabilities and pictures as PNG; pictures as JPEG too.

Shapes
    labels   uint8 [height, width], 0 background, else the category id
    picture  uint8 [height, width, 3], RGB
    mean     float32 [height, width], probabilities of one lung
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image

from mask_rcnn.lungs import CATEGORIES

FULL_SCALE = 65535  # of probabilities in 16 bits
PNG_HEADER = 8 + 25  # bytes: the signature and the chunk that comes first


def label_png(labels: np.ndarray, laterality: str) -> bytes:
    """A label mask as grey PNG, whose text chunks name the labels."""
    # Runs are what a label mask is made of: a third of the time of PNG's usual settings, and half the bytes.
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
                cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]  # fmt: skip
    names = ", ".join(f"{category} {name}" for category, name in CATEGORIES.items())
    return _with_texts(cv2.imencode(".png", labels, settings)[1].tobytes(), {"labels": names, "laterality": laterality})


def probability_png(mean: np.ndarray, category: int, laterality: str) -> bytes:
    """A lung's probabilities as grey PNG of 16 bits: 0 is 0 and 65535 is 1, as its text chunks say."""
    pixels = np.rint(mean * FULL_SCALE).astype(np.uint16)
    texts = {"probability": f"of {CATEGORIES[category]}, times {FULL_SCALE}", "laterality": laterality}
    return _with_texts(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes(), texts)


def picture_png(picture: np.ndarray) -> bytes:
    """A grey or an RGB picture, uint8 [height, width] or [height, width, 3], as PNG."""
    # Pillow tries all filters a row, which takes as long again and makes a picture of a film no smaller. Level 3 would take
    # half as long again for a seventh less.
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 2, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    ordered = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", ordered, settings)[1].tobytes()


def picture_jpeg(picture: np.ndarray, quality: int = 85) -> bytes:
    """A grey or an RGB picture as JPEG, a few times smaller."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)  # halved colours blur thin outlines
    return buffer.getvalue()


def _with_texts(png: bytes, texts: Mapping[str, str]) -> bytes:
    """A PNG with text chunks behind its header (PNG specification, 11.3.4.3), which OpenCV does not write."""
    chunks = b""
    for key, text in texts.items():
        content = b"tEXt" + key.encode("latin-1") + b"\0" + text.encode("latin-1")
        chunks += struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return png[:PNG_HEADER] + chunks + png[PNG_HEADER:]
