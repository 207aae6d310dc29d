"""The pictures that the page shows: a thumbnail of each film with its lungs outlined, and films that no browser shows.

A picture is named by its film's id and digest: one that is there is right, and a film that changed gets another.

Shapes
    film     uint8 [height, width], grey, bones white
    picture  uint8 [height, width, 3], RGB, the long side ``SIDE`` at most
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mask_rcnn.dataset.run_lengths import decode_mask
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.films.square import mask_shares, shrink
from mask_rcnn.results.drawing import outline_lung
from mask_rcnn.results.names import PAGE_FILES
from mask_rcnn.results.page.films import PageFilm
from mask_rcnn.results.pictures import picture_jpeg
from mask_rcnn.system.files import write_bytes
from mask_rcnn.system.progress import progress

THUMBNAILS, FILMS = "thumbnails", "films"
SIDE, THUMBNAIL_QUALITY, FILM_QUALITY = 240, 75, 90  # pixels; about 8 KB a thumbnail
AT_A_TIME = 256

Segmentations = Mapping[int, Mapping[str, Any]]  # run lengths by category id

_SHOWN_FORMATS = frozenset({"JPEG", "PNG", "WEBP", "BMP", "GIF"})
_SHOWN_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})  # not 16 bits, which browsers do not spread


def picture_name(image_id: int, digest: str) -> str:
    """A picture's name below its folder, of a hundred folders."""
    return f"{image_id % 100:02d}/{image_id}-{digest[:8]}.jpg"


def film_pictures(
    path: Path, film: np.ndarray, lungs: Mapping[int, np.ndarray], image_id: int, digest: str
) -> dict[str, bytes]:
    """A film's thumbnail and, where no browser shows its file as it is (DICOM, TIFF, 16 bits), the film itself.

    Args:
        path: of the film's file.
        film: as it was read, bones white.
        lungs: bool [height, width] by category id.
        image_id, digest: of the film.

    Returns:
        Files by their names below the folder of the run, the thumbnail last.
    """
    name = picture_name(image_id, digest)
    contents = {}
    if not is_shown_by_browsers(path):
        contents[f"{PAGE_FILES}/{FILMS}/{name}"] = picture_jpeg(film, FILM_QUALITY)
    contents[f"{PAGE_FILES}/{THUMBNAILS}/{name}"] = picture_jpeg(thumbnail(film, lungs), THUMBNAIL_QUALITY)
    return contents


def write_pictures(
    out: Path, path: Path, film: np.ndarray, lungs: Mapping[int, np.ndarray], image_id: int, digest: str
) -> None:
    """Writes ``film_pictures`` into the folder of a run.

    Raises:
        OSError: they cannot be written.
    """
    for name, content in film_pictures(path, film, lungs, image_id, digest).items():
        write_bytes(out / name, content)


def thumbnail(film: np.ndarray, lungs: Mapping[int, np.ndarray]) -> np.ndarray:
    """A small picture of a film, bones white, with its lungs outlined."""
    height, width = film.shape
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    picture = cv2.cvtColor(shrink(film, *size), cv2.COLOR_GRAY2RGB)
    for category, lung in lungs.items():
        outline_lung(picture, mask_shares(lung, *picture.shape[:2]) >= 0.5, category)
    return picture


def is_shown_by_browsers(path: Path) -> bool:
    """Whether a browser shows a film's file with the grey levels that this program reads from it."""
    try:
        with Image.open(path) as image:
            return image.format in _SHOWN_FORMATS and image.mode in _SHOWN_MODES
    except Exception:  # Pillow raises what its readers raise; a DICOM is no image to it
        return False


def add_missing_pictures(out: Path, films: Iterable[PageFilm], lungs_of: Callable[[PageFilm], Segmentations]) -> None:
    """Writes the pictures that are not there; of a film that cannot be read any more there are none.

    Args:
        lungs_of: the run lengths of a film's lungs; called in one thread at a time.

    Raises:
        OSError: they cannot be written.
    """
    thumbnails = out / PAGE_FILES / THUMBNAILS
    missing = [film for film in films if not (thumbnails / picture_name(film.image_id, film.digest)).is_file()]

    def add(task: tuple[PageFilm, Segmentations]) -> None:
        film, lungs = task
        try:
            pixels = read_film(film.path)
        except (FilmError, OSError):
            return
        masks = {category: decode_mask(dict(lung)) for category, lung in lungs.items()}
        write_pictures(out, film.path, 255 - pixels if film.inverted else pixels, masks, film.image_id, film.digest)

    remaining = iter(missing)
    with ThreadPool(os.cpu_count()) as pool, progress(name="pictures", total=len(missing)) as bar:
        while batch := [(film, lungs_of(film)) for film in islice(remaining, AT_A_TIME)]:
            for _ in pool.imap_unordered(add, batch):
                bar.update()


def remove_stale_pictures(out: Path, films: Iterable[PageFilm]) -> None:
    """Removes pictures of films that changed or are gone: whoever removes a film from a folder wants it gone from the page."""
    names = {picture_name(film.image_id, film.digest) for film in films}
    for kind in (THUMBNAILS, FILMS):
        folder = out / PAGE_FILES / kind
        for path in folder.glob("*/*.jpg"):
            if path.relative_to(folder).as_posix() not in names:
                with suppress(OSError):
                    path.unlink()
