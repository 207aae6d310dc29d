"""DICOM films: pixels through the transforms of their header, and the distance between pixels.

Of a file's header only what concerns its pixels is read: no name or number of a patient enters the program.
DICOM objects alone, where a user wants them, are made of the whole header (``results.dicom_seg``).

Shapes
    film    uint8 [height, width], grey, 0 black (air) to 255 white (bone)
    stored  [height, width] or, in colour, [height, width, 3], levels as they are in the file
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mask_rcnn.films.dicom_file import PIXEL_DATA, looks_like_dicom, open_dataset
from mask_rcnn.films.dicom_pixels import decode
from mask_rcnn.films.images import FilmError, check_size, in_one_line, read_head, to_8_bit
from mask_rcnn.films.orientation import doubts_of, upright
from mask_rcnn.films.spacing import Calibration, Spacing, calibrated_spacing

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

__all__ = ["SUFFIXES", "is_dicom", "looks_like_dicom", "read_dicom"]

SUFFIXES = frozenset({".dcm", ".dicom"})


def is_dicom(path: Path, head: bytes) -> bool:
    """Whether a file is one by its suffix or by its first 132 bytes."""
    return path.suffix.lower() in SUFFIXES or looks_like_dicom(head)


def read_dicom(path: Path) -> tuple[np.ndarray, Spacing | None, str, tuple[str, ...], Calibration | None]:
    """The film, uint8 [height, width], bones white, upright; its spacing; how it was turned (``orientation.upright``);
    what its header raises as doubts (``orientation.doubts_of``); and where the spacing comes from.

    Raises:
        FilmError: it is no DICOM, holds no image or several, cannot be decoded, or claims too many pixels.
    """
    no_dicom = FilmError(path, "is no DICOM", "remove it or copy it again from its source")
    is_known = looks_like_dicom(read_head(path))  # what has the suffix alone may be anything
    try:
        dataset = open_dataset(path)
        if "Rows" not in dataset or not any(name in dataset for name in PIXEL_DATA):
            raise FilmError(path, "is DICOM without an image", "leave it out of the folder") if is_known else no_dicom
        is_known = True
        check_size(path, int(dataset.Columns), int(dataset.Rows))
        if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
            raise FilmError(path, f"has {frames} frames", "give a single film")
        spacing, calibration = calibrated_spacing(dataset)
        film, spacing, turned = upright(_film_of(dataset), spacing, dataset)
        return film, spacing, turned, doubts_of(dataset), calibration
    except FilmError:
        raise
    except Exception as error:  # pydicom and its decoders raise nearly every built-in exception on torn files
        if not is_known:
            raise no_dicom from error
        reason = f"cannot be decoded as DICOM ({in_one_line(error)})"
        raise FilmError(path, reason, "convert it to PNG or export it again") from error


def _film_of(dataset: FileDataset) -> np.ndarray:
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut

    stored = decode(dataset)
    photometric = dataset.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return cv2.cvtColor(to_8_bit(stored[..., :3]), cv2.COLOR_RGB2GRAY)
    pixels = stored
    for transform in (apply_modality_lut, apply_voi_lut):
        pixels = _transformed(transform, pixels, dataset)
    outside = _padding_of(stored, dataset)
    if outside.any() and not outside.all():  # its level is often far from the film's and would use up the grey scale
        pixels = np.where(outside, pixels[~outside].min(), pixels)
    film = to_8_bit(pixels)
    return np.where(outside, 0, 255 - film if photometric == "MONOCHROME1" else film).astype(np.uint8)


def _transformed(
    transform: Callable[[np.ndarray, Dataset], np.ndarray], pixels: np.ndarray, dataset: Dataset
) -> np.ndarray:
    """What a transform of pydicom makes of the pixels; the pixels as they are where its attributes are nonsense.

    Nonsense is what cannot be applied (a width of 0) and what leaves one level of the whole film (another film's window).
    """
    try:
        changed = transform(pixels, dataset)
    except Exception:  # a KeyError, TypeError, ValueError, ...: pydicom trusts the file
        return pixels
    return changed if changed.min() < changed.max() else pixels


def _padding_of(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Bool [height, width]: where the detector saw nothing (PS3.3, C.7.5.1.1.2); not from a range that is nonsense."""
    first = dataset.get("PixelPaddingValue")
    last = dataset.get("PixelPaddingRangeLimit", first)
    if not isinstance(first, int) or not isinstance(last, int):
        return np.zeros(stored.shape, bool)
    return (stored >= min(first, last)) & (stored <= max(first, last))
