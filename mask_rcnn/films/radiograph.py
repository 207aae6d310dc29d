"""Reading a film, or a label mask, from a file of any kind.

Shapes
    film    uint8 [height, width], grey, 0 black (air) to 255 white (bone)
    labels  uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mask_rcnn.films.dicom import is_dicom, read_dicom
from mask_rcnn.films.images import FilmError, open_image, read_head, read_image
from mask_rcnn.films.spacing import Calibration
from mask_rcnn.lungs import CATEGORIES

MIN_SIDE = 32  # pixels


class Radiograph(NamedTuple):
    """A film as it was read."""

    pixels: np.ndarray  # uint8 [height, width], bones white
    spacing: tuple[float, float] | None  # millimetres between rows, and between columns; of DICOM alone
    turned: str = ""  # how the stored pixels were turned by the DICOM header, in the words of ``orientation.upright``
    doubts: tuple[str, ...] = ()  # reasons in the DICOM header against an upright frontal film with both lungs
    calibration: Calibration | None = None  # where the spacing comes from


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
    check_sides(path, film.pixels)
    return film


def check_sides(path: str | Path, film: np.ndarray) -> None:
    """Raises a FilmError for fewer than ``MIN_SIDE`` pixels a side."""
    height, width = film.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise FilmError(path, f"only {width} x {height} pixels", f"give a film of {MIN_SIDE} pixels or more a side")


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
