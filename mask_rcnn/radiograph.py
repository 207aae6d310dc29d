"""Chest films: reading them, equalising their grey levels, fitting them to a square and back.

Shapes
    film    uint8 [height, width], grey, 0 black (air) to 255 white (bone)
    square  uint8 [side, side] or [side, side, channels], the film scaled and centred, zeros around it
    window  (y1, x1, y2, x2) in pixels of the square: where the film lies in it
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mask_rcnn.coco import CATEGORIES
from mask_rcnn.dicom import SUFFIXES as DICOM_SUFFIXES
from mask_rcnn.dicom import is_dicom, read_dicom
from mask_rcnn.images import FilmError, open_image, read_head, read_image

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp", ".avif", ".gif", ".pgm", ".ppm", ".pnm",
     ".jp2", ".j2k", ".jpx"}
)  # fmt: skip
FILM_SUFFIXES = IMAGE_SUFFIXES | DICOM_SUFFIXES

MIN_SIDE = 32  # pixels


def film_stem(name: str) -> str:
    """A film's name or path without its suffix; of ``1.2.3.10`` nothing is taken, as ``.10`` is no film's suffix."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in FILM_SUFFIXES else name


class Radiograph(NamedTuple):
    """A film as it was read."""

    pixels: np.ndarray  # uint8 [height, width], bones white
    spacing: tuple[float, float] | None  # millimetres between rows, and between columns; only DICOM tells
    turned: str = ""  # how the stored pixels were turned by the DICOM header, in the words of ``orientation.upright``
    doubts: tuple[str, ...] = ()  # what the DICOM header says against an upright frontal film with both lungs, in words


def read_radiograph(path: str | Path) -> Radiograph:
    """Reads a film: DICOM, JPEG, PNG, TIFF, BMP, WebP, or what else Pillow decodes, by its content and not its name.

    Deeper grey levels are scaled linearly to 8 bits. DICOM films pass through the modality and VOI transforms
    (PS3.3 C.11.1 and C.11.2), and MONOCHROME1 is inverted.

    Raises:
        FilmError: the file is absent, empty, torn, no image, not a single one, or one smaller than 32 pixels or larger
            than 120 megapixels.
    """
    path = Path(path)
    film = Radiograph(*read_dicom(path)) if is_dicom(path, read_head(path)) else Radiograph(read_image(path), None)
    if min(film.pixels.shape) < MIN_SIDE:
        height, width = film.pixels.shape
        raise FilmError(path, f"only {width} x {height} pixels", f"give a film of {MIN_SIDE} pixels or more a side")
    return film


def read_film(path: str | Path) -> np.ndarray:
    """The pixels that ``read_radiograph`` reads, uint8 [height, width]."""
    return read_radiograph(path).pixels


def read_labels(path: str | Path) -> np.ndarray:
    """Reads a label mask, uint8 [height, width]: 0 background, else the category id; of a palette the index counts.

    Raises:
        FilmError: it cannot be read, or holds anything else.
    """
    path = Path(path)
    read_head(path)
    with open_image(path) as image:
        labels = np.asarray(image)
    known = ", ".join(f"{category} {name}" for category, name in CATEGORIES.items())
    remedy = f"save it in grey of 8 bits: 0 background, {known}"
    if labels.ndim != 2 or labels.dtype.kind not in "bui":
        raise FilmError(path, f"is no label mask but {image.mode}", remedy)
    if unknown := set(np.unique(labels).tolist()) - {0, *CATEGORIES}:
        used = np.unique(labels[labels > 0]).tolist()
        guesses = {1: " (one value for both lungs?)", 2: f" ({' and '.join(map(str, used))} for the two lungs?)"}
        raise FilmError(path, f"is no label mask{guesses.get(len(used), '')}: it holds label {max(unknown)}", remedy)
    return labels.astype(np.uint8)


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
        counts += cv2.calcHist([rows[start : start + step]], [0], None, [256], [0, 256])[:, 0].astype(np.int64)
    return counts


def fit_to_square(film: np.ndarray, side: int) -> tuple[np.ndarray, tuple[int, int, int, int], float]:
    """Scales a film so that its long side is ``side`` pixels and centres it on a square of zeros.

    Args:
        film: uint8 [height, width] or [height, width, channels].
        side: of the square, in pixels.

    Returns:
        The square, the window (y1, x1, y2, x2) that the film takes in it, and the scale, square over film.
    """
    square = np.zeros((side, side) + film.shape[2:], film.dtype)
    window = y1, x1, y2, x2 = _window_in_square(film.shape[:2], side)
    square[y1:y2, x1:x2] = _resize(film, y2 - y1, x2 - x1)
    return square, window, side / max(film.shape[:2])


def _window_in_square(shape: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    scale = side / max(shape)
    height, width = (max(1, round(length * scale)) for length in shape)
    top, left = (side - height) // 2, (side - width) // 2
    return top, left, top + height, left + width


def _resize(film: np.ndarray, height: int, width: int) -> np.ndarray:
    if (height, width) == film.shape[:2]:
        return film
    if film.shape[0] >= 2 * height:  # bilinear samples of a far larger film would alias its grain
        return cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)
    resized = np.stack([stretch(channel, height, width) for channel in np.atleast_3d(film).transpose(2, 0, 1)], axis=-1)
    # Truncated, as the reference does; the small number outweighs the rounding of the interpolation.
    return (resized + 1e-4).astype(film.dtype).reshape(height, width, *film.shape[2:])


def stretch(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resizing of [h, w] to float32 [height, width].

    The values are cells, whose centres lie half a cell inside the edges; beyond the outermost centres they fall to zero.
    As two matrix products it is exact and, on large targets, faster than OpenCV's or SciPy's with that border.
    """
    down = _interpolation_matrix(values.shape[0], height)
    across = _interpolation_matrix(values.shape[1], width)
    return down @ values.astype(np.float32) @ across.T


def _interpolation_matrix(count: int, target: int) -> np.ndarray:
    """float32 [target, count]: how much of each source sample goes into each target pixel."""
    position = (np.arange(target) + 0.5) / target * count - 0.5
    distance = np.abs(position[:, None] - np.arange(count))
    return np.maximum(1 - distance, 0).astype(np.float32)


def fit_labels_to_square(labels: np.ndarray, side: int) -> np.ndarray:
    """Fits a label mask, uint8 [height, width], to the square as ``fit_to_square`` fits its film."""
    square = np.zeros((side, side), labels.dtype)
    y1, x1, y2, x2 = _window_in_square(labels.shape, side)
    square[y1:y2, x1:x2] = resize_labels(labels, y2 - y1, x2 - x1)
    return square


def resize_labels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """A label mask, uint8 [h, w], at another size: a pixel gets the label that covers most of it.

    Halves are common where a mask shrinks to a half or a quarter; they go to the background on every other pixel, so that
    no outline moves. Nearest neighbours would move them all to one side.
    """
    if (height, width) == labels.shape:
        return labels
    way = cv2.INTER_AREA if width < labels.shape[1] else cv2.INTER_LINEAR
    resized = np.zeros((height, width), labels.dtype)
    rows, columns = np.ogrid[:height, :width]
    most = np.float32(1e-4) * ((rows + columns) % 2 * 2 - 1)
    most += cv2.resize((labels == 0).astype(np.float32), (width, height), interpolation=way)
    for label in np.unique(labels[labels > 0]):
        share = cv2.resize((labels == label).astype(np.float32), (width, height), interpolation=way)
        resized[share > most] = label
        most = np.maximum(most, share)
    return resized
