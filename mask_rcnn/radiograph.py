"""Chest films: reading them, equalising their grey levels, fitting them to a square and back.

Shapes
    film    uint8 [height, width], grey, 0 black (air) to 255 white (bone)
    square  uint8 [side, side] or [side, side, channels], the film scaled and centred, zeros around it
    window  (y1, x1, y2, x2) in pixels of the square: where the film lies in it
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
FILM_SUFFIXES = IMAGE_SUFFIXES | DICOM_SUFFIXES

# The largest flat-panel detectors give about 20 megapixels; a file that claims far more is broken or hostile.
MAX_PIXELS = 120_000_000
MIN_SIDE = 32

# The guard against decompression bombs is MAX_PIXELS, checked from the header before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


class FilmError(ValueError):
    """A file that is no readable film; the message names the file, the reason and the remedy."""

    def __init__(self, path: str | Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason}; {remedy}")


def read_film(path: str | Path) -> np.ndarray:
    """Reads a JPEG, PNG, TIFF, BMP or DICOM film as uint8 [height, width], bones white.

    Deeper grey levels are scaled linearly to 8 bits. DICOM films pass through the modality and VOI
    transforms (DICOM PS3.3 C.11.1 and C.11.2), and MONOCHROME1 is inverted.

    Raises:
        FilmError: the file is absent, empty, torn, no image, smaller than 32 pixels or larger than 120 megapixels.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise FilmError(path, "the file is empty", "copy it again from its source")
        with path.open("rb") as file:
            is_dicom = path.suffix.lower() in DICOM_SUFFIXES or file.read(132)[128:] == b"DICM"
        film = _read_dicom(path) if is_dicom else _read_image(path)
    except FilmError:
        raise
    except FileNotFoundError as error:
        raise FilmError(path, "there is no such file", "check the path") from error
    except OSError as error:
        raise FilmError(path, f"cannot be read ({error})", "check its permissions or copy it again") from error
    if min(film.shape) < MIN_SIDE:
        height, width = film.shape
        raise FilmError(path, f"only {width} x {height} pixels", f"give a film of {MIN_SIDE} pixels or more a side")
    return film


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise FilmError(
            path, f"claims {width} x {height} pixels", f"scale it below {MAX_PIXELS // 1_000_000} megapixels"
        )


def _read_image(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata in films that decode perfectly well
            with Image.open(path) as file:
                _check_size(path, *file.size)
                image: Image.Image = ImageOps.exif_transpose(file)
                if image.mode.startswith(("I", "F")):  # 16 and 32 bit grey
                    return to_8_bit(np.asarray(image))
                if image.mode in ("P", "PA"):
                    image = image.convert("RGBA" if "transparency" in image.info else "RGB")
                if image.mode in ("LA", "RGBA", "La", "RGBa"):
                    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
                    image = Image.alpha_composite(black, image.convert("RGBA"))
                return np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, FilmError):
            raise
        reason = "is no image" if "cannot identify" in str(error) else f"cannot be decoded ({error})"
        raise FilmError(path, reason, "remove it or copy it again from its source") from error


def _read_dicom(path: Path) -> np.ndarray:
    import pydicom  # imported here: most users have no DICOM, and the import costs a fifth of a second
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of private or odd tags that do not touch the pixels
            dataset = pydicom.dcmread(path)
            if "Rows" not in dataset or "PixelData" not in dataset:
                raise FilmError(path, "is DICOM without an image", "leave it out of the folder")
            _check_size(path, int(dataset.Columns), int(dataset.Rows))
            pixels = dataset.pixel_array
            photometric = dataset.PhotometricInterpretation
            if photometric.startswith("MONOCHROME"):
                pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
    except FilmError:
        raise
    except Exception as error:  # pydicom and its decoders raise nearly every built-in exception on torn files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FilmError(path, f"cannot be decoded as DICOM ({reason})", "convert it to PNG or export it again") from error
    if pixels.ndim == 3 and pixels.shape[-1] in (3, 4):
        return cv2.cvtColor(to_8_bit(pixels[..., :3]), cv2.COLOR_RGB2GRAY)
    if pixels.ndim != 2:
        raise FilmError(path, f"has {pixels.shape[0]} frames", "give a single film")
    film = to_8_bit(pixels)
    return 255 - film if photometric == "MONOCHROME1" else film


def to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """Scales any grey levels linearly to uint8, the lowest to 0 and the highest to 255; uint8 is returned as it is."""
    if pixels.dtype == np.uint8:
        return pixels
    pixels = np.nan_to_num(pixels.astype(np.float64))
    low, high = float(pixels.min()), float(pixels.max())
    if high <= low:
        return np.zeros(pixels.shape, np.uint8)
    return np.round((pixels - low) * (255.0 / (high - low))).astype(np.uint8)


def equalise(film: np.ndarray) -> np.ndarray:
    """Spreads the grey levels of a uint8 film evenly over 0 to 255, with one histogram over all its channels.

    Level v becomes floor(255 (C(v) - C(lowest)) / (N - C(lowest))), where C is the cumulative histogram and
    N the number of pixels (Gonzalez and Woods, Digital Image Processing, section 3.3). A film of one level becomes 0.
    """
    cumulative = np.cumsum(np.bincount(film.ravel(), minlength=256))
    lowest = cumulative[film.min()]
    spread = cumulative[-1] - lowest
    if spread == 0:
        return np.zeros_like(film)
    table = np.clip((cumulative - lowest) * 255 // spread, 0, 255).astype(np.uint8)
    return table[film]


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


def stretch(values: np.ndarray, height: int, width: int, corners: bool = False) -> np.ndarray:
    """Bilinear resizing of [h, w] to float32 [height, width].

    As two matrix products it is exact and, on large targets, faster than OpenCV's or SciPy's with that border.

    Args:
        corners: False takes the values for cells, whose centres lie half a cell inside the edges, and zero beyond these;
            True for samples, the outermost of which lie on the edges.
    """
    down = _interpolation_matrix(values.shape[0], height, corners)
    across = _interpolation_matrix(values.shape[1], width, corners)
    return down @ values.astype(np.float32) @ across.T


def _interpolation_matrix(count: int, target: int, corners: bool) -> np.ndarray:
    """float32 [target, count]: how much of each source sample goes into each target pixel."""
    share = (np.arange(target) + 0.5) / target
    position = share * (count - 1) if corners else share * count - 0.5
    distance = np.abs(position[:, None] - np.arange(count))
    return np.maximum(1 - distance, 0).astype(np.float32)


def fit_labels_to_square(labels: np.ndarray, side: int) -> np.ndarray:
    """Fits a label mask, uint8 [height, width], to the square as ``fit_to_square`` fits its film (nearest neighbour)."""
    square = np.zeros((side, side), labels.dtype)
    y1, x1, y2, x2 = _window_in_square(labels.shape, side)
    square[y1:y2, x1:x2] = cv2.resize(labels, (x2 - x1, y2 - y1), interpolation=cv2.INTER_NEAREST_EXACT)
    return square


# Folders beside films that hold drawings of them, and what archives made on a Mac leave behind.
_NOT_FILMS = frozenset({"masks", "mask", "overlays", "__macosx"})


def find_film_paths(root: Path, skip: Collection[Path] = ()) -> list[Path]:
    """Every file under ``root`` that looks like a film, sorted by its path; ``root`` itself where it is a file.

    A film has one of ``FILM_SUFFIXES``, or any other name and the DICOM preamble (PS3.10, section 7.1). Hidden files
    and folders, folders of masks and overlays, ``__MACOSX`` and the folders of ``skip`` are passed over; linked folders
    are entered once. Nothing is decoded: ``read_film`` tells whether it is a film indeed.
    """
    if root.is_file():
        return [root]
    entered = {path.resolve() for path in skip}
    found = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        resolved = Path(folder).resolve()
        if resolved in entered:
            subfolders.clear()
            continue
        entered.add(resolved)
        subfolders[:] = sorted(name for name in subfolders if name[0] != "." and name.lower() not in _NOT_FILMS)
        found += [path for name in names if name[0] != "." and _looks_like_film(path := Path(folder, name))]
    return sorted(found)


def _looks_like_film(path: Path) -> bool:
    if path.suffix.lower() in FILM_SUFFIXES:
        return True
    if not path.is_file():  # opening a named pipe would wait for ever
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
