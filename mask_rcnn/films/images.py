"""Raster image files (JPEG, PNG, TIFF, BMP, WebP, ...) as grey levels, and what every file is checked for first.

Shapes
    film    uint8 [height, width], grey, 0 black (air) to 255 white (bone)
"""

from __future__ import annotations

import io
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from mask_rcnn.films.mending import has_all_pixels, mend

# The largest flat-panel detectors give about 20 megapixels; a file that claims far more is broken or hostile.
MAX_PIXELS = 120_000_000
MAX_BYTES = 8 * MAX_PIXELS
HEAD = 132  # bytes, enough to recognise a DICOM file

# Files of these kinds are decoded where they are opened: they may have to be mended, and Pillow decodes some of them though
# a part is missing. MPO is a camera's JPEG.
_CHECKED = frozenset({"JPEG", "MPO", "PNG", "JPEG2000"})
_ANIMATED = frozenset({"GIF", "WEBP", "AVIF"})

_NEW_SUBFILE_TYPE, _REDUCED_IMAGE = 254, 1  # TIFF 6.0, section 8: a page that is another page's thumbnail
_WHITE_IS_ZERO, _UNSIGNED = 0, 1


class FilmError(ValueError):
    """A file that is no readable film; the message names the file, the reason and the remedy."""

    def __init__(self, path: str | Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason}; {remedy}")


def read_head(path: Path) -> bytes:
    """The first 132 bytes of a file that is worth opening: regular, as a pipe would wait for ever, and not empty.

    Raises:
        FilmError: it is not, or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FilmError(path, "is no regular file", "leave it out")
        if status.st_size == 0:
            raise FilmError(path, "the file is empty", "copy it again from its source")
        if status.st_size > MAX_BYTES:
            raise FilmError(path, f"has {status.st_size / 1e9:.1f} GB", "give a single film")
        with path.open("rb") as file:
            return file.read(HEAD)
    except FileNotFoundError as error:
        raise FilmError(path, "there is no such file", "check the path") from error
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise FilmError(path, reason, "check its permissions or copy it again") from error


def check_size(path: str | Path, width: int, height: int) -> None:
    """Raises a FilmError for more than ``MAX_PIXELS``."""
    if width * height > MAX_PIXELS:
        raise FilmError(
            path, f"claims {width} x {height} pixels", f"scale it below {MAX_PIXELS // 1_000_000} megapixels"
        )


def in_one_line(error: Exception) -> str:
    """The message of an exception without line breaks, at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """An image whose header claims no absurd size; whatever fails within the block is raised as a FilmError.

    A JPEG or PNG whose pixels are all there is mended where its file is not whole (``mending.mend``).
    """
    try:
        with path.open("rb") as file, _open_or_mend(path, file) as image:
            yield image
    except FilmError:
        raise
    except UnidentifiedImageError as error:
        if read_head(path)[:4] in (b"II*\0", b"MM\0*"):
            raise FilmError(path, "is a TIFF of a rare kind", "save it as PNG of 8 or 16 bits") from error
        raise FilmError(path, "is no image", "remove it or copy it again from its source") from error
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on torn files
        reason = f"cannot be decoded ({in_one_line(error)})"
        raise FilmError(path, reason, "remove it or copy it again from its source") from error


def _open_or_mend(path: Path, file: BinaryIO) -> Image.Image:
    try:
        image = _open(path, file)
        if image.format in _CHECKED:
            image.load()
            file.seek(0)
            if not has_all_pixels(file.read()):
                raise OSError("a part of its pixels is missing")
        return image
    except FilmError:
        raise
    except Exception:
        file.seek(0)
        try:
            mended = mend(file.read(), lambda content: _open(path, io.BytesIO(content)).tobytes())
            image = _open(path, io.BytesIO(mended))
            image.load()
            return image
        except FilmError:  # it claims too much
            raise
        except Exception:  # the error without mending is the clearer one
            pass
        raise


def _open(path: Path, file: BinaryIO) -> Image.Image:
    """As ``Image.open``, but held to ``MAX_PIXELS``: Pillow's own limit is one for all programs in a process.

    Raises:
        FilmError: the header claims more.
        UnidentifiedImageError: it is no image.
    """
    start = file.read(16)
    tried = set()
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for kind in [kind for kind in Image.ID if kind not in tried]:
            tried.add(kind)
            factory, accepts = Image.OPEN[kind]
            try:
                if accepts and accepts(start) is not True:
                    continue
                file.seek(0)
                image = factory(file, str(path) if isinstance(file, io.BufferedReader) else "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # another kind that begins alike
            check_size(path, *image.size)
            return image
    raise UnidentifiedImageError(str(path))


def read_image(path: Path) -> np.ndarray:
    """Reads a JPEG, PNG, TIFF, BMP, or what else Pillow decodes, as uint8 [height, width]: turned by its EXIF, colours
    grey, what is transparent black, deeper levels by ``to_8_bit``.

    Raises:
        FilmError: it cannot be decoded, claims more than ``MAX_PIXELS`` or has several pages or frames.
    """
    with open_image(path) as image:
        tags: dict[int, Any] = {}
        if isinstance(image, TiffImageFile):
            if _has_pages(image):
                raise FilmError(path, "has several pages", "save the film as a file of its own")
            tags = {SAMPLEFORMAT: (_UNSIGNED,), **image.tag_v2}
        elif image.format in _ANIMATED and (frames := getattr(image, "n_frames", 1)) > 1:
            raise FilmError(path, f"has {frames} frames", "give a single film")
        try:
            ImageOps.exif_transpose(image, in_place=True)
        except Exception:  # torn EXIF turns nothing; torn pixels raise again
            image.load()
        if image.mode.startswith(("I", "F")):  # 16 and 32 bit grey
            levels = np.asarray(image)
            if levels.dtype == np.int32 and tags.get(SAMPLEFORMAT) == (_UNSIGNED,):
                levels = levels.view(np.uint32)
            film = to_8_bit(levels)
            # Pillow obeys this tag for shallower levels alone.
            return 255 - film if tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO else film
        if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = Image.alpha_composite(black, image.convert("RGBA"))
        if image.mode == "P":
            image = image.convert("RGB")
        return np.asarray(image if image.mode == "L" else image.convert("L"))


def _has_pages(image: TiffImageFile) -> bool:
    """Whether a TIFF holds a second page that is no thumbnail; leaves it at its first page."""
    pages = 0
    try:
        for page in range(8):  # thumbnails of one film are fewer
            image.seek(page)
            pages += not image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED_IMAGE
    except EOFError:
        pass
    image.seek(0)
    return pages > 1


def to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """Scales any grey levels linearly to uint8, the lowest to 0 and the highest to 255; uint8 is returned as it is.

    Levels that are not finite become the lowest.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind == "f":
        finite = pixels[np.isfinite(pixels)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        pixels = np.nan_to_num(pixels, nan=low, posinf=low, neginf=low)
    else:
        low, high = int(pixels.min()), int(pixels.max())
    if high <= low:
        return np.zeros(pixels.shape, np.uint8)
    if pixels.dtype.kind != "f" and pixels.dtype.itemsize <= 2:  # a look-up is five times as fast
        levels = np.round(np.arange(high - low + 1) * (255.0 / (high - low))).astype(np.uint8)
        return np.asarray(levels[pixels.astype(np.int32) - low])
    return np.round((pixels.astype(np.float64) - low) * (255.0 / (high - low))).astype(np.uint8)
